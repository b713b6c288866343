"""A bridge's connection that the kernel has."""

from __future__ import annotations

from collections import Counter

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
