"""A bridge's connection that the kernel has."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from packetbridge.core.flow import Flow
from packetbridge.program import fast_path
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import recorded


@pytest.fixture
def path() -> KernelPath:
    return KernelPath(2, Counter())


@pytest.fixture
def flow(path: KernelPath) -> Flow:
    return recorded(path)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For pins, in a file system for them, which containers often lack and only a lab mounts."""
    pins = fast_path.directory().parent / f"test-{os.getpid()}"
    where = pins.parent.parent
    kind = subprocess.run(["stat", "-f", "-c", "%T", where], capture_output=True, check=True).stdout
    mounted = kind.strip() != b"bpf_fs"
    if mounted:
        subprocess.run(["mount", "-t", "bpf", "l3dsr-test", where], check=True)
    try:
        yield pins
    finally:
        if mounted:
            subprocess.run(["umount", where], check=True)
        else:
            for pin in pins.glob("*"):
                pin.unlink()
            pins.rmdir()
