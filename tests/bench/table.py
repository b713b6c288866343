"""The result in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from tests.bench.cases import Case
from tests.bench.results import Figures, Results

COLUMNS = (
    "median",
    "least to most",
    "/ direct",
    "/ HAProxy",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "failed",
    "machine CPU s",
    "balancer CPU s",
    "through balancer",
    "servers",
)


def show(console: Console, results: Results, cases: Iterable[Case]) -> None:
    for case in cases:
        table = Table(title=f"{case.title} ({case.unit})", title_justify="left")
        table.add_column("")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for name, figures in results.figures(case).items():
            table.add_row(name, *_row(figures))
        console.print(table)


def _row(figures: Figures) -> list[str]:
    form = ",.0f" if figures.most >= 100 else ".1f"
    percentiles = [figures.latency.get(name) for name in ("p50", "p99", "p99.9")]
    carried = f"{figures.carried_bytes / 1e6:,.2f} MB"
    if figures.carried is not None:
        carried = f"{figures.carried:.2%}"
    return [
        f"{figures.rate:{form}}",
        f"{figures.least:{form}} to {figures.most:{form}}",
        f"{figures.to_direct:.2f}",
        f"{figures.to_haproxy:.2f}",
        *("" if value is None else f"{value:.2f}" for value in percentiles),
        f"{figures.failed}",
        f"{figures.machine:.2f}",
        f"{figures.balancer:.2f}",
        carried,
        " + ".join(f"{count}" for count in figures.requests),
    ]
