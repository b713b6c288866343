"""How `doctor` says what it has seen: aligned lines, or JSON, and the exit code."""

from __future__ import annotations

import json
from functools import partial

import pytest
from click.testing import CliRunner

import balancer.program.cli as balancer_cli
import packetbridge.program.cli as bridge_cli
from common.adapters.checks import Problem
from common.program.examination import Line, Prerequisite, Verdict, examine

LINES = [
    Line(Verdict.OK, "MTU", "fits"),
    Line(Verdict.NOT_JUDGED, "clock of 10.0.0.1", "nobody tells"),
    Line(Verdict.WARNING, "reverse path", "is strict", "sysctl -w x=2"),
]
ILL = Line(Verdict.NOT_OK, "forwarding", "is off", "sysctl -w y=1")
TEXT = """\
ok          MTU                fits
not judged  clock of 10.0.0.1  nobody tells
warning     reverse path       is strict
                               mend: sysctl -w x=2
"""


@pytest.mark.parametrize("cli", [balancer_cli, bridge_cli])
def test_lines_and_exit_code(cli: object, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(LINES)
    monkeypatch.setattr(cli.PROGRAM, "examine", lambda _: iter(lines))  # type: ignore[attr-defined]
    asked = partial(CliRunner().invoke, cli.main)  # type: ignore[attr-defined]
    result = asked(["doctor"])
    assert (result.exit_code, result.output) == (0, TEXT)
    lines.append(ILL)
    result = asked(["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)[-1] == {
        "verdict": "not ok",
        "subject": "forwarding",
        "found": "is off",
        "mend": "sysctl -w y=1",
    }
    assert asked(["doctor", "--port", "0"]).exit_code == 2


def test_a_line_for_each_problem_and_for_what_is_well() -> None:
    told = [Problem("a", "mend a"), Problem("b", "mend b", fatal=False)]
    prerequisites = [
        Prerequisite("one", "is fine", list),
        Prerequisite("two", "", lambda: told),
        Prerequisite("three", "is there", lambda: told, root=True),
    ]
    assert list(examine(prerequisites, root=False)) == [
        Line(Verdict.OK, "one", "is fine"),
        Line(Verdict.NOT_OK, "two", "a", "mend a"),
        Line(Verdict.WARNING, "two", "b", "mend b"),
        Line(Verdict.NOT_JUDGED, "three", "only root can look (is there)"),
    ]
    assert len(list(examine(prerequisites, root=True))) == 5
