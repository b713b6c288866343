"""The benchmark itself, in its smallest form: what it shows was measured."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import measure, publish
from tests.bench.cases import Sizes, Traffic, cases
from tests.bench.contestants import OURS
from tests.bench.meters import Cost
from tests.bench.results import Results, Round, missed
from tests.e2e.conftest import lacking

SMALLEST = Sizes(large=1 << 25, parallel=1 << 20, seconds=1, uploads=1, rounds=1)
CASES = [case for case in cases(SMALLEST) if case.name not in {"keepalive512", "connections"}]
NAMES = [
    "direct",
    "direct, both servers",
    "kernel DNAT",
    "HAProxy",
    "nginx",
    "ours (ebpf)",
    "ours (nfqueue)",
]


@pytest.mark.root
def test_every_contestant_in_every_case(tmp_path: Path) -> None:
    if missing := lacking("haproxy"):
        pytest.skip(f"needs {missing}")
    console = Console(file=StringIO(), width=180)
    results = measure(console, CASES, SMALLEST)
    publish(console, results, CASES, SMALLEST, tmp_path)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [case["case"] for case in found["cases"]] == [case.name for case in CASES]
    for case in found["cases"]:
        figures = case["figures"]
        assert list(figures) == NAMES
        assert [one["failed"] for one in figures.values()] == [0] * len(NAMES), case["case"]
        asked = {name: one["requests"] for name, one in figures.items()}
        assert all(map(sum, asked.values())), "the servers have seen the requests of each"
        if case["unit"] == "requests/s":
            del asked["direct"]
            assert all(min(requests) > 0 for requests in asked.values()), "both servers are used"
            assert all(
                one["latency"]["p99"] >= one["latency"]["p50"] > 0 for one in figures.values()
            )
    by_case = {case["case"]: case["figures"] for case in found["cases"]}
    carried = {name: figures["carried"] for name, figures in by_case["download"].items()}
    assert carried["direct"] < 0.001
    assert carried[OURS] < 0.05  # of so small a download; the rest comes back by itself
    for name in ("kernel DNAT", "HAProxy", "nginx"):
        assert carried[name] > 1.9, "in and out again"
    assert "balance uri" in found["peers"]["HAProxy"]
    assert "<svg" in (tmp_path / "bench.svg").read_text()


def test_what_is_missed_is_said() -> None:
    """Ratios are of measurements of the same round; goals are our kernel path's."""
    results, case = Results(), CASES[0]
    rates = {"direct": (100, 400), "HAProxy": (50, 100), OURS: (80, 380)}
    for name, found in rates.items():
        for rate in found:
            results.add(
                case, name, Round(Traffic(rate * 1e6, 1, 0), Cost(1, 0, rate * 10**4, [1, 0]))
            )
    figures = results.figures(case)[OURS]
    assert (figures.rate, figures.least, figures.most) == (230, 80, 380)
    assert figures.to_direct == pytest.approx((0.8 + 0.95) / 2)
    assert figures.to_haproxy == pytest.approx((1.6 + 3.8) / 2)
    assert [line.rpartition(": ")[2] for line in missed(results, [case])] == [
        "2.70 of HAProxy, not 3",
        "1.00% through the balancer, not 0.50%",
    ]
    results.add(case, "HAProxy", Round(Traffic(1e6, 1, 3), Cost(1, 0, 0, [0, 0])))
    for name in ("direct", OURS):
        results.add(case, name, Round(Traffic(1e6, 1, 0), Cost(1, 0, 0, [0, 0])))
    assert missed(results, [case])[-1].endswith("HAProxy: 3 requests failed")
