"""A bridge's connection that the kernel has."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from packetbridge.core.flow import Flow
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import recorded


@pytest.fixture
def path() -> KernelPath:
    return KernelPath(2, Counter())


@pytest.fixture
def flow(path: KernelPath) -> Flow:
    return recorded(path)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A directory for pinned maps, in a file system of its own."""
    subprocess.run(["mount", "-t", "bpf", "own", tmp_path], check=True)
    try:
        yield tmp_path / "pins"
    finally:
        subprocess.run(["umount", tmp_path], check=True)
