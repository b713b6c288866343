"""When a target is up and when it is down, by HAProxy's rules; and when it is checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.health import Judge, Rhythm, Transition


def course(results: str, rise: int = 2, fall: int = 3) -> str:
    """What a judge says after each of ``results`` (+ a good check, - a bad one, ! a connection that
    went wrong): U and D."""
    judge = Judge(rise, fall, 0.0)
    said = ""
    for result in results:
        if result == "+":
            judge.passed(1.0)
        elif result == "-":
            judge.failed("bad", 1.0)
        else:
            judge.suspected("bad", 1.0)
        said += "U" if judge.up else "D"
    return said


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ("-", "D"),  # the first check decides
        ("+---", "UUUD"),
        ("+--+--+---", "UUUUUUUUUD"),  # in a row, or not at all
        ("-++", "DDU"),
        ("-+-+-++", "DDDDDDU"),
        ("-++--", "DDUUU"),  # who has come back has all of fall again
        ("-++---", "DDUUUD"),
        ("!!!", "UUD"),  # no check yet: connections need all of fall
        ("!-", "UU"),
        ("!!-", "UUD"),
        ("+!-!", "UUUD"),  # they count with the checks
        ("+!!+!!", "UUUUUU"),
        ("-+!++", "DDDDU"),  # and against a return
    ],
)
def test_results_in_a_row_decide(results: str, said: str) -> None:
    assert course(results) == said


def test_with_one_and_one_every_result_decides() -> None:
    assert course("+-+-!+", rise=1, fall=1) == "UDUDDU"


def test_a_transition_says_why_and_since_when() -> None:
    judge = Judge(2, 2, 10.0)
    assert (judge.up, judge.reason, judge.since, judge.changes) == (True, "", 10.0, 0)
    assert judge.passed(11.0) is None
    assert judge.failed("refused", 12.0) is None
    assert judge.misses == 1
    assert judge.failed("timeout", 13.0) == Transition(False, "timeout", 13.0)
    assert judge.failed("refused", 14.0) is None
    assert (judge.reason, judge.since) == ("refused", 13.0)  # the latest reason, the first time
    assert judge.passed(15.0) is None
    assert judge.passed(16.0) == Transition(True, "", 16.0)
    assert (judge.up, judge.reason, judge.since, judge.changes) == (True, "", 16.0, 2)


class Rows:
    """The rule in its own words: the last results in a row."""

    def __init__(self, rise: int, fall: int) -> None:
        self.rise, self.fall = rise, fall
        self.up, self.row = True, ""
        self.first = True

    def tell(self, good: bool) -> None:
        sign = "+" if good else "-"
        self.row = self.row + sign if self.row.endswith(sign) else sign
        if self.up and not good and (self.first or len(self.row) >= self.fall):
            self.up, self.row = False, ""
        elif not self.up and good and len(self.row) >= self.rise:
            self.up, self.row = True, ""
        self.first = False


@given(st.lists(st.booleans()), st.integers(1, 5), st.integers(1, 5))
def test_it_is_the_rule_in_other_words(results: list[bool], rise: int, fall: int) -> None:
    judge, rows = Judge(rise, fall, 0.0), Rows(rise, fall)
    for number, good in enumerate(results):
        before = judge.up
        told = judge.passed(number) if good else judge.failed("bad", number)
        rows.tell(good)
        assert judge.up == rows.up
        assert (told is not None) == (judge.up != before)
        assert 0 <= judge.misses < fall


def test_checks_keep_their_distance_give_or_take() -> None:
    rhythm = Rhythm(interval=2.0, jitter=0.1)
    chances = (0.0, 0.5, 1.0)
    assert [rhythm.next_check(100.0, chance) for chance in chances] == [101.8, 102.0, 102.2]
    assert Rhythm(2.0, 0.0).next_check(100.0, 0.9) == 102.0


def test_first_checks_are_spread_over_a_second_at_most() -> None:
    assert Rhythm(60.0, 0.1).first_check(100.0, 0.5) == 100.5
    assert Rhythm(0.5, 0.1).first_check(100.0, 1.0) == 100.5
