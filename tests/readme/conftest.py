"""Fixtures of the tests of what the pages say: a lab that is made as they say, and its reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import lacking
from tests.e2e.lab import LAB, NAME, PROGRAMS, Lab
from tests.readme.reader import Reader

READERS = f"{NAME}-readme"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "types(commands): of the pages, which the test types")


@pytest.fixture(scope="module")
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, Path]]:
    """The lab on the kernel's path, started and removed by the module's two commands for that; and
    a directory for what its hosts have."""
    if missing := lacking("tcpdump"):
        pytest.skip(f"needs {missing}")
    directory = tmp_path_factory.mktemp("reader")
    lab = Lab("ebpf", READERS, LAB / "readme")
    up, down = request.module.BY_THE_LAB
    user = Reader(lab, READERS, directory, (up, down))
    try:
        assert "lab is up" in user.types(up)
        yield lab, directory
    finally:
        assert "lab is down" in user.types(down)
    assert not list(Path("/run/netns").glob(f"{READERS}-*"))
    assert not (lab.directory / "run").exists()


@pytest.fixture
def reader(kept: tuple[Lab, Path], request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Told what the test is marked with, and to type all of it."""
    lab, directory = kept
    marked = request.node.get_closest_marker("types")
    made = Reader(lab, READERS, directory, marked.args)
    yield made
    assert made.typed == made.told


@pytest.fixture
def lab(kept: tuple[Lab, Path]) -> Iterator[Lab]:
    """With all programs running, also afterwards."""
    lab, _ = kept
    yield lab
    for program in PROGRAMS:
        if not lab.alive(program):
            lab.script("restart", program)
