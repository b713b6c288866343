"""Fixtures of the end-to-end tests: the lab of namespaces, with both programs and both servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.lab import PROGRAMS, Lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "speed: measures; run after all others, on a quiet machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("speed") is not None)


TOOLS = ("nginx", "curl", "wrk", "ethtool", "ip", "ss", "nsenter", "flock", "iptables")


def lacking() -> str | None:
    """What of the host the lab cannot do without and is not there; None where all is."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} (make packages)"
    enter = ["unshare", "--net"]
    queue = ["iptables", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "-j", "NFQUEUE"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        return "network namespaces"
    if subprocess.run([*enter, *queue], capture_output=True, check=False).returncode:
        return "iptables' NFQUEUE target (xt_NFQUEUE, nfnetlink_queue)"
    return None


@pytest.fixture(scope="session")
def running_lab() -> Iterator[Lab]:
    """The lab, up from the first test that needs it to the end of the run."""
    if missing := lacking():
        pytest.skip(f"needs {missing}")
    lab = Lab(os.environ.get("LAB_DATAPATH", "nfqueue"))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """The lab; whatever the test did to it, no program may have met an error of its own."""
    if not running_lab.complete():  # the test before this one failed half-way
        running_lab.up()
    started = {program: running_lab.log_end(program) for program in PROGRAMS}
    yield running_lab
    for program, start in started.items():
        anew = running_lab.log_end(program) < start  # the test took the lab down and up again
        log = running_lab.log(program, 0 if anew else start)
        assert not re.search("Traceback|internal_error", log), f"{program}:\n{log[-3000:]}"
