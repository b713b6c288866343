"""The course of a probe: questions, the attempt, the questions again."""

from __future__ import annotations

from balancer.program.probe import questions
from balancer.program.probe.attempt import attempt
from balancer.program.probe.questions import Answers
from balancer.program.probe.seen import NOTHING, Answer, Seen, Signs, Told
from balancer.program.probe.wanted import Wanted
from common.adapters import host_signs

NOBODY = "0.0.0.0:1"  # before there is a connection


def run(wanted: Wanted) -> Seen:
    """Raises OSError where a file of ``wanted`` cannot be read."""
    before = questions.ask(wanted, NOBODY)
    here = host_signs.read([wanted.vip]).encode()
    with attempt(wanted) as made:
        after = _after(wanted, before, made.client)
    told = {at: _told(at, before.get(at, NOTHING), answer) for at, answer in after.items()}
    return Seen(
        wanted=wanted,
        made=made,
        own=Signs(here, host_signs.read([wanted.vip]).encode()),
        balancer=told.pop(wanted.balancer),
        bridges={each.address: each for each in told.values()},
    )


def _after(wanted: Wanted, before: Answers, client: str) -> Answers:
    """The answers now. A balancer that has told nothing before is not waited for once more: without
    what was before, what is now says little."""
    if "trouble" in before[wanted.balancer] and not wanted.bridges:
        return before
    return questions.ask(wanted, client)


def _told(at: str, before: Answer, after: Answer) -> Told:
    trouble = after.get("trouble") or before.get("trouble") or ""
    return Told(at, before, after, float(after.get("ahead", 0.0)), str(trouble))
