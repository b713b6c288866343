"""What idle flows cost: a promise to whoever plans a machine, kept by measuring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.soak import Amount

FLOWS = 100_000
MOST = 100_000_000  # bytes of resident memory
LEVEL = 1.05  # a full table's memory, in relation to what it was when fewer had come

Report = Callable[[str], None]


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_idle_flows_fit_in_100_mb(program: str) -> None:
    figures = _filled(program, FLOWS)
    assert figures["flows"] == FLOWS
    assert figures["after"] < MOST


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_more_flows_than_there_is_room_for(program: str, amount: Amount, report: Report) -> None:
    """Each is served, the longest idle go for it, and memory stays level."""
    flows, room = amount((20_000, 5_000), (1_000_000, 50_000))
    figures = _filled(program, flows, room)
    report(
        f"{program}: {flows:,} flows, the last {figures['flows']:,} kept; "
        f"{figures['most'] / 1e6:.0f} MB when 60 % had come, {figures['after'] / 1e6:.0f} MB after"
    )
    assert figures["flows"] == room
    assert figures["after"] < LEVEL * figures["most"]


def _filled(program: str, *sizes: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.resources.idle_flows", program, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    pairs = (word.split("=") for word in done.stdout.split()[1:])
    return {name: int(value) for name, value in pairs}
