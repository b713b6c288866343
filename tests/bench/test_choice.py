"""The benchmark of the policies: it runs, and the page shows what it finds."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.choice import FULL, POLICIES, flows, found, name_of
from tests.readme.pages import ROOT

PAGE = ROOT / "docs" / "choice.md"


def test_it_measures_every_policy() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.bench.choice", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(" | ")[0].removeprefix("| ") for line in told.splitlines()]
    for policy in POLICIES:
        assert rows.count(name_of(*policy)) >= 2, "what it costs, and how it spreads"
    assert "N = 10" in told


def test_the_page_shows_what_is_found() -> None:
    """Of the same keys and names always the same."""
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| maglev | 1.0"))
    results = [found("maglev", 0.0, count, flows(FULL.keys)) for count in (2, 10)]
    assert [f"{one.peak:.3f}" for one in results] == row.split(" | ")[1:3]
    parts = [f"{part:.1%}" for one in results for part in (one.down, one.removed, one.back)]
    assert parts == row.split(" | ")[4:10]
