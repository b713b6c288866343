"""A million hostile packets at each program's core, without a kernel: nothing escapes, all add up.

Half and more are sound, and many carry a valid cookie or a valid handoff, as they come from real
connections, recorded and simulated, that are then changed, repeated, delayed and cut: a coverage
figure shows that they get to the bottom of the state machines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.soak import Amount

ROOT = Path(__file__).parents[2]
SEED = 20_240_607
LINES, BRANCHES = 0.96, 0.90  # of the cores' packet code, in the fast form; the long one has more
STALL = 1.0  # seconds that no packet takes, on however busy a machine
LEVEL = 8 << 20  # bytes that memory may differ between the last quarter and the one before
REACHED = {  # outcomes and occurrences, and of how many packets in a thousand they are at least
    "balancer": {
        "syn": 60,
        "connections": 50,
        "handoffs": 12,
        "steered": 110,
        "answer_ended": 5,
        "syns_steered": 10,
    },
    "packetbridge": {
        "handoff_taken": 20,
        "backend_syn_ack": 15,
        "spliced_up": 45,
        "spliced_down": 45,
        "syns": 10,
    },
}


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_nothing_escapes_and_all_adds_up(
    amount: Amount, report: Callable[[str], None], program: str
) -> None:
    packets, measured = amount((20_000, 20_000), (1_000_000, 100_000))
    figures = _fuzzed(program, packets, measured, amount)
    counts, fed = figures["counts"], figures["fed"]
    lines, branches = figures["lines"], figures["branches"]
    resident = [size / 1e6 for size in figures["resident"]]
    report(
        f"{fed:,} packets, {figures['sound'] / fed:.0%} sound; covered {lines:.1%} of lines, "
        f"{branches:.1%} of branches; memory {resident[0]:.0f} to {resident[-1]:.0f} MB; slowest "
        f"packet {figures['slowest'] * 1000:.0f} ms"
    )
    assert fed >= packets
    assert figures["sound"] > fed / 2
    assert figures["slowest"] < STALL
    few = {name: counts.get(name, 0) * 1000 / fed for name in REACHED[program]}
    assert all(few[name] > least for name, least in REACHED[program].items()), few
    assert lines > LINES, figures["missing"]
    assert branches > BRANCHES, figures["missing"]
    quarter = len(resident) // 4
    before, last = resident[-2 * quarter : -quarter], resident[-quarter:]
    assert (max(last) - max(before)) * 1e6 < LEVEL, resident


def _fuzzed(program: str, packets: int, measured: int, amount: Amount) -> dict[str, Any]:
    """Runs in a process of its own: its memory, and what it covers, are nobody else's."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        program,
        str(packets),
        str(SEED),
        str(measured),
    ]
    said = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert run.stdout is not None
        for line in run.stderr:
            said.append(line)
            if line.strip().isdigit():
                amount.progress(int(line), packets)
        answer = run.stdout.read()
    assert run.returncode == 0, "".join(said[-60:])
    figures: dict[str, Any] = json.loads(answer)
    return figures
