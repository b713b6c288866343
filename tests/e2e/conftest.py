"""Fixtures of the end-to-end tests: the lab of namespaces, with both programs and both servers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.lab import PROGRAMS, Lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "speed: measures; run after all others, on a quiet machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("speed") is not None)


@pytest.fixture(scope="session")
def running_lab() -> Iterator[Lab]:
    """The lab, up from the first test that needs it to the end of the run."""
    for tool in ("nsenter", "nginx", "curl", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: make packages")
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
