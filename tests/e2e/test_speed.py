"""Floors under the speed of the data path in use, beside what the same machine does without it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.e2e.lab import SERVER1, VIP, Lab

pytestmark = [pytest.mark.root, pytest.mark.speed]

RUNS = 3


@dataclass(frozen=True)
class Floor:
    """What must be reached through the VIP on a machine that reaches ``direct`` without it. On one
    that is slower, or busy, the floor is lower in proportion: both are measured in turn."""

    through: float
    direct: float

    def holds(self, through: list[float], direct: list[float]) -> bool:
        machine = min(1, statistics.median(direct) / self.direct)
        return statistics.median(through) >= self.through * machine


DOWNLOAD = Floor(30e6, direct=2e9)  # bytes per second
NEW_CONNECTIONS = Floor(2000, direct=12_000)  # per second
KEEP_ALIVE = Floor(4000, direct=44_000)  # requests per second


def test_one_download(lab: Lab, report: Callable[[str], None]) -> None:
    path = lab.path_for("100m", "backend1")
    through, direct = [], []
    for _ in range(RUNS):
        answer = lab.curl(path, "-o", "/dev/null")
        assert answer.status == 200
        through.append(answer.bytes_per_second)
        direct.append(_direct_download(lab))
    _report(report, "100 MB download, MB/s", through, direct, 1e6)
    assert DOWNLOAD.holds(through, direct)


@pytest.mark.parametrize(
    ("title", "headers", "floor"),
    [
        ("new connections/s, 1 kB", ["-H", "Connection: close"], NEW_CONNECTIONS),
        ("keep-alive requests/s, 1 kB", [], KEEP_ALIVE),
    ],
    ids=["new connections", "keep-alive"],
)
def test_requests_per_second(
    lab: Lab, report: Callable[[str], None], title: str, headers: list[str], floor: Floor
) -> None:
    through, direct = [], []
    for _ in range(RUNS):
        through.append(_wrk(lab, "client", VIP, headers))
        direct.append(_wrk(lab, "client2", SERVER1, headers))
    _report(report, title, through, direct, 1)
    assert floor.holds(through, direct)


def _direct_download(lab: Lab) -> float:
    """By the second client: the first one's ports belong to connections through the VIP."""
    return lab.curl("/100m", "-o", "/dev/null", host="client2", to=SERVER1).bytes_per_second


def _wrk(lab: Lab, host: str, address: str, headers: list[str]) -> float:
    """Requests per second of 32 connections in 2 s, all of them answered with success."""
    command = ["wrk", "-t1", "-c32", "-d2s", "--timeout", "5s", *headers, f"http://{address}/1k"]
    output = lab.run(host, *command, timeout=30)
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    assert rate, output
    return float(rate[1])


def _report(
    report: Callable[[str], None],
    title: str,
    through: list[float],
    direct: list[float],
    unit: float,
) -> None:
    for name, values in (("through the VIP", through), ("direct", direct)):
        figures = " ".join(f"{value / unit:.0f}" for value in sorted(values))
        report(f"{title}, {name}: {figures}")
