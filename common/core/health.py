"""Whether a target is well, judged from results in a row; and when to look again.

As HAProxy judges its servers (its configuration manual, ``rise`` and ``fall``): a target that
nothing is known of is taken for well, so that a start serves at once, but its first check decides:
one bad answer, and it is down. From then on ``fall`` bad results in a row take it down, and
``rise`` good ones bring it back.

No clock, no chance: the time and a random number are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_CHECKS = 1.0  # seconds, at most, over which the first checks of all targets are spread


@dataclass(frozen=True, slots=True)
class Transition:
    """A target's change to ``up`` or down at ``since`` (monotonic seconds); ``reason`` is that of
    the last bad result, empty when it is up."""

    up: bool
    reason: str
    since: float


class Judge:
    """Of one target. ``since`` is when it became what it is, ``changes`` how often it did."""

    __slots__ = ("_checked", "_score", "changes", "fall", "reason", "rise", "since", "up")

    def __init__(self, rise: int, fall: int, now: float) -> None:
        self.rise, self.fall = rise, fall
        # HAProxy's scale: 0 to rise + fall - 1, up from rise on.
        self._score = rise
        self._checked = False
        self.up = True
        self.reason = ""
        self.since = now
        self.changes = 0

    @property
    def misses(self) -> int:
        """Of a target that is up: bad results since the last good one."""
        return self.rise + self.fall - 1 - self._score if self.up and self._checked else 0

    def passed(self, now: float) -> Transition | None:
        """A check went well; what changes by it, if anything."""
        self._checked = True
        if self.up:
            self._score = self.rise + self.fall - 1
            return None
        self._score += 1
        return self._turn(True, "", now) if self._score == self.rise else None

    def failed(self, reason: str, now: float) -> Transition | None:
        """A check went wrong; what changes by it, if anything."""
        self._checked = True
        if not self.up:
            self._score = 0
            self.reason = reason
            return None
        self._score -= 1
        return self._turn(False, reason, now) if self._score < self.rise else None

    def suspected(self, reason: str, now: float) -> Transition | None:
        """A connection went wrong: that counts as a bad check does, except that it does not decide
        over a target that has not been checked yet, as it may be the only one of many."""
        if not self._checked and self.up:
            self._score = self.rise + self.fall - 1
        return self.failed(reason, now)

    def _turn(self, up: bool, reason: str, now: float) -> Transition:
        self.up, self.reason, self.since = up, reason, now
        self._score = self.rise + self.fall - 1 if up else 0
        self.changes += 1
        return Transition(up, reason, now)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """``interval`` seconds between two checks, give or take ``jitter`` of it (0 to 1), so that the
    checks of many targets do not keep coming at the same moment."""

    interval: float
    jitter: float

    def first_check(self, now: float, random: float) -> float:
        """When to check first; ``random`` is a number from 0 to 1."""
        return now + min(self.interval, FIRST_CHECKS) * random

    def next_check(self, now: float, random: float) -> float:
        """When to check again what was checked ``now``."""
        return now + self.interval * (1 + self.jitter * (2 * random - 1))


class Judges(Generic[K]):
    """Of all targets, each known by a key. What is said of one that is not known, or any more, is
    ignored: it may have been on its way when the configuration changed."""

    def __init__(self) -> None:
        self._judges: dict[K, Judge] = {}

    def follow(self, wanted: Mapping[K, tuple[int, int]], now: float) -> None:
        """Judge these from now on, by (rise, fall), and no others; whoever is known by the same
        numbers stays what it is."""
        known = self._judges
        self._judges = {
            key: known[key]
            if key in known and (known[key].rise, known[key].fall) == numbers
            else Judge(*numbers, now)
            for key, numbers in wanted.items()
        }

    def get(self, key: K) -> Judge | None:
        return self._judges.get(key)

    def checked(self, key: K, well: bool, reason: str, now: float) -> Transition | None:
        """The result of a check; what changes by it."""
        judge = self._judges.get(key)
        if judge is None:
            return None
        return judge.passed(now) if well else judge.failed(reason, now)

    def suspected(self, key: K, reason: str, now: float) -> Transition | None:
        """A connection went wrong; what changes by it."""
        judge = self._judges.get(key)
        return None if judge is None else judge.suspected(reason, now)
