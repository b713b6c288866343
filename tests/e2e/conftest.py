"""Fixtures of the end-to-end tests: the lab of namespaces, with both programs and both servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.hostile import download, keys, sender, unharmed
from tests.e2e.lab import PROGRAMS, Lab
from tests.e2e.routed import UPLOAD, forget_path_mtus, routed_lab
from tests.e2e.scripted import scripted_service

__all__ = ["download", "keys", "sender", "unharmed"]  # fixtures


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "speed: measures; run after all others, on a quiet machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("speed") is not None)


TOOLS = ("nginx", "curl", "wrk", "ethtool", "ip", "ss", "nsenter", "flock", "iptables")


def lacking(*more: str) -> str | None:
    """What of the host the lab, or a test, needs and is not there; None where all is."""
    for tool in (*TOOLS, *more):
        if shutil.which(tool) is None:
            return f"{tool} (make packages)"
    enter = ["unshare", "--net"]
    queue = ["iptables", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "-j", "NFQUEUE"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        return "network namespaces"
    if subprocess.run([*enter, *queue], capture_output=True, check=False).returncode:
        return "iptables' NFQUEUE target (xt_NFQUEUE, nfnetlink_queue)"
    return None


@contextmanager
def brought_up(lab: Lab) -> Iterator[Lab]:
    """A lab that is up; skips the test where the host lacks what it takes."""
    if missing := lacking():
        pytest.skip(f"needs {missing}")
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def running_lab() -> Iterator[Lab]:
    """The lab, up from the first test that needs it to the end of the run."""
    with brought_up(Lab(os.environ.get("LAB_DATAPATH", "nfqueue"))) as lab:
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """The lab; whatever the test did to it, no program may have met an error of its own."""
    if not running_lab.complete():  # the test before this one failed half-way
        running_lab.up()
    with _no_errors(running_lab):
        yield running_lab


@pytest.fixture(scope="module")
def running_routed() -> Iterator[Lab]:
    """The routed lab, up for the tests of one file."""
    with brought_up(routed_lab(os.environ.get("LAB_DATAPATH", "nfqueue"))) as lab:
        yield lab


@pytest.fixture
def routed(running_routed: Lab) -> Iterator[Lab]:
    """The routed lab as no kernel in it has learned of a path's MTU; otherwise as ``lab``."""
    forget_path_mtus(running_routed)
    with _no_errors(running_routed):
        yield running_routed


@pytest.fixture(scope="module")
def first_bridges(running_routed: Lab) -> Callable[[str], str]:
    """Gives, by file, a path that leads to the routed lab's first bridge, as that was when the
    file's tests began."""
    found = {name: running_routed.path_for(name, "backend1") for name in ("20m", UPLOAD)}
    return found.__getitem__


@contextmanager
def _no_errors(lab: Lab) -> Iterator[None]:
    started = {program: lab.log_end(program) for program in PROGRAMS}
    yield
    for program, start in started.items():
        anew = lab.log_end(program) < start  # the test took the lab down and up again
        log = lab.log(program, 0 if anew else start)
        assert not re.search("Traceback|internal_error", log), f"{program}:\n{log[-3000:]}"


@pytest.fixture(scope="module")
def scripted(running_lab: Lab) -> Iterator[None]:
    """VIP port 8081 for servers of the tests' own; see tests/e2e/scripted.py."""
    with scripted_service(running_lab):
        yield
