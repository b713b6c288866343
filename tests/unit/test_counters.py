"""The names that the programs count by, and the tables of them in docs/counters.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.core.ledger import Occurrence, Outcome
from tests.unit import balancer_stage, bridge_stage
from tests.unit.accounting import names

PAGE = (Path(__file__).parents[2] / "docs" / "counters.md").read_text(encoding="utf-8")
COLUMN = {"balancer": "b", "packetbridge": "p"}
GAUGES = {
    "balancer": set(balancer_stage.Stage().core.gauges()),
    "packetbridge": set(bridge_stage.Stage().core.gauges()),
}


def documented(heading: str, program: str) -> set[str]:
    """The names in the page's table under ``heading`` that it says ``program`` has."""
    _, _, rest = PAGE.partition(f"| {heading} | in |")
    rows = re.findall(r"^\| (`.*`) \| ([bp ]+) \| \S.*\|$", rest.partition("\n\n")[0], re.MULTILINE)
    return {
        name
        for cell, programs in rows
        if COLUMN[program] in programs
        for name in re.findall(r"`(\w+)`", cell)
    }


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_the_page_lists_every_outcome_and_no_other(program: str) -> None:
    assert documented("outcome of a packet", program) == names(Outcome, program)


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_the_page_lists_every_other_counter_and_no_more(program: str) -> None:
    occurrences = names(Occurrence, program)
    assert documented("counted besides", program) == occurrences | GAUGES[program]


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_a_name_has_one_meaning(program: str) -> None:
    assert not names(Outcome, program) & names(Occurrence, program)
    assert not GAUGES[program] & (names(Outcome, program) | names(Occurrence, program))
