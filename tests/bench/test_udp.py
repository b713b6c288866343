"""The measurement of DNS by UDP, in its smallest form: what it shows was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.udp import DIRECT, DNAT, OURS, Round, figures
from tests.e2e.conftest import lacking
from tests.e2e.nameservers import TOOLS, Load
from tests.readme.pages import ROOT

# Our own ways are loaded by tests/e2e/test_dns.py.
SHORT = ("--rounds", "1", "--seconds", "0.5", "--way", DNAT)


@pytest.mark.root
def test_a_peer_is_measured_beside_direct(tmp_path: Path) -> None:
    if missing := lacking(*TOOLS):
        pytest.skip(f"needs {missing}")
    told = subprocess.run(
        [sys.executable, "-m", "tests.bench.udp", *SHORT, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert f"round 1: {DNAT}" in told
    found = json.loads((tmp_path / "udp.json").read_text())["figures"]
    assert list(found) == [DIRECT, DNAT]
    for name, one in found.items():
        assert one["rate"] > 0, name
        assert one["cost"] > 1, name
        assert one["lost"] <= one["sent"] // 100, name


def test_ratios_are_of_the_same_round() -> None:
    def load(rate: float, lost: int = 0) -> Round:
        return Round(Load(100, lost, rate, 0.001, ""), 2e-5)

    found = figures({DIRECT: [load(100), load(400)], OURS: [load(80, lost=3), load(380)]})[OURS]
    assert (found.rate, found.least, found.most) == (230, 80, 380)
    assert found.to_direct == pytest.approx((0.8 + 0.95) / 2)
    assert (found.sent, found.lost) == (200, 3)
    assert found.latency == pytest.approx(1)
    assert found.cost == pytest.approx(20)
