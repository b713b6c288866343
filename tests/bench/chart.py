"""The result as a picture: rates beside the direct one, a panel for each case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tests.bench.cases import Case
from tests.bench.contestants import BOTH, DIRECT, OURS
from tests.bench.results import Results

COLOURS = {OURS: "#0b6e4f", "ours (nfqueue)": "#7fb69f", DIRECT: "#333333", BOTH: "#333333"}
OTHERS = "#9aa5b1"


def draw(path: Path, results: Results, cases: Sequence[Case], subtitle: str) -> None:
    """Writes the format that the file's name says."""
    figure = Figure(figsize=(11, 1.2 + 1.75 * (len(cases) + 1) // 2), layout="constrained")
    figure.suptitle(f"Relative to no balancer at all, median of rounds\n{subtitle}", fontsize=10)
    for number, case in enumerate(cases):
        axes = figure.add_subplot((len(cases) + 1) // 2, 2, number + 1)
        figures = results.figures(case)
        names = list(figures)[::-1]
        ratios = [figures[name].to_direct for name in names]
        bars = axes.barh(names, ratios, color=[COLOURS.get(name, OTHERS) for name in names])
        rates = [f"{figures[name].rate:,.0f} {case.unit}" for name in names]
        axes.bar_label(bars, rates, padding=3, fontsize=7)
        axes.set_title(case.title, fontsize=9, loc="left")
        axes.set_xlim(0, max(*ratios, 1) * 1.35)
        axes.axvline(1, color="#333333", linewidth=0.6, linestyle=":")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.fonttype": "none"}):  # text stays text: half the size
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
