"""What `doctor` says of a host, a line for each prerequisite; `check` and a start say what is wrong
of the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from common.adapters import checks
from common.adapters.alone import runs
from common.adapters.checks import Problem


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """``look`` tells what is wrong with the ``subject``, nothing where all is well; ``why`` says
    what that is, or what it is for. ``root``: only root can look."""

    subject: str
    why: str
    look: Callable[[], list[Problem]]
    root: bool = False


class Verdict(StrEnum):
    OK = "ok"
    NOT_OK = "not ok"  # prevents a start, or connections
    WARNING = "warning"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Line:
    """``found`` is what was seen; ``mend`` the command that mends it, or what to do."""

    verdict: Verdict
    subject: str
    found: str
    mend: str = ""


def problems(prerequisites: Iterable[Prerequisite]) -> list[Problem]:
    return [problem for each in prerequisites for problem in each.look()]


def examine(prerequisites: Iterable[Prerequisite], root: bool) -> Iterator[Line]:
    """A line for each prerequisite, or for each problem that there is with it."""
    for each in prerequisites:
        if each.root and not root:
            yield Line(Verdict.NOT_JUDGED, each.subject, f"only root can look ({each.why})")
            continue
        found = each.look()
        for problem in found:
            verdict = Verdict.NOT_OK if problem.fatal else Verdict.WARNING
            yield Line(verdict, each.subject, problem.what, problem.mend)
        if not found:
            yield Line(Verdict.OK, each.subject, each.why)


def program(name: str, key_file: str, queues: Iterable[int]) -> Iterator[Prerequisite]:
    """What a program itself needs, unless it runs already, and then has."""
    yield Prerequisite(
        "privileges",
        "CAP_NET_ADMIN and CAP_NET_RAW, to change rules and to send packets",
        partial(checks.privileges, f"{name} doctor"),
    )
    yield Prerequisite("key", f"{key_file} has one", partial(checks.key, key_file, name), True)
    process = runs(name)
    for number in queues:
        if process is None:
            look = partial(checks.queue, number)
            yield Prerequisite(f"queue {number}", "no program has it", look, True)
        else:
            held = f"{name} has it, process {process}"
            yield Prerequisite(f"queue {number}", held, list)


def other_rules(look: Callable[[], list[Problem]]) -> Prerequisite:
    """The rules that the host has besides; ``look`` gives a problem for each packet of ours that
    they would not let pass."""
    why = "let our packets pass: tried in a copy"
    return Prerequisite("other rules", why, look, root=True)


def queues() -> Iterator[Prerequisite]:
    """What reading packets from queues needs, whichever they are."""
    yield Prerequisite("queue library", "can be loaded", checks.queue_library)
    yield Prerequisite("queue losses", "can be read, and so be counted", checks.losses)
