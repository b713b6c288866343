"""Who of the pools' backends is well: active checks, and connections that went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from balancer.core import config
from common.core.health import Judge, Judges, Transition

ACCUSERS = 64  # client addresses remembered of a backend

Mark = Callable[[str, str, bool, str, float], None]
"""Of a pool and a backend: whether it is up, why not, and when (monotonic seconds)."""


class Checked(Protocol):
    """A backend of a pool, as far as its health goes."""

    name: str
    bridge: str
    up: bool


class CheckedPool(Protocol):
    """A pool likewise."""

    configured: config.Pool

    @property
    def members(self) -> Iterable[Checked]: ...


class PoolHealth:
    """Judges the backends of pools that have a check, and tells ``mark`` what changes.

    What goes wrong with connections counts as bad checks do, and is counted for all pools:
    ``failures`` by (pool, backend, kind). Of one client address it counts once until a check finds
    the backend well: a client that a server refuses, or that wants it to look so, must not take it
    from everybody.
    """

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._judges: Judges[tuple[str, str]] = Judges()
        self._accusers: dict[tuple[str, str], set[bytes]] = {}
        self.failures: Counter[tuple[str, str, str]] = Counter()

    def follow(self, pools: Mapping[str, CheckedPool], now: float) -> None:
        """Judge the backends of these pools, by their names, from now on. One that is not checked
        any more is taken for well: nobody would bring it back."""
        wanted: dict[tuple[str, str], tuple[int, int]] = {}
        there = set()
        for name, pool in pools.items():
            check = pool.configured.check
            for member in pool.members:
                who = name, member.name
                there.add(who)
                if check is not None:
                    wanted[who] = check.rise, check.fall
                elif self._judges.get(who) is not None and not member.up:
                    self._mark(*who, True, "", now)
        self._judges.follow(wanted, now)
        for who in self._accusers.keys() - wanted.keys():
            del self._accusers[who]
        for gone in [key for key in self.failures if key[:2] not in there]:
            del self.failures[gone]

    def judge(self, pool: str, backend: str) -> Judge | None:
        """The judge of a backend; None where it is not checked."""
        return self._judges.get((pool, backend))

    def checked(self, pool: str, backend: str, well: bool, reason: str, now: float) -> None:
        """The result of an active check."""
        if not well and self._judges.get((pool, backend)) is not None:
            self.failures[pool, backend, "check"] += 1
        self._tell(pool, backend, self._judges.checked((pool, backend), well, reason, now))
        judge = self._judges.get((pool, backend))
        if well and judge is not None and judge.up:
            self._accusers.pop((pool, backend), None)

    def suspected(self, pool: str, backend: str, kind: str, client: bytes, now: float) -> None:
        """A connection of that client address (4 bytes) that was handed to it went wrong; ``kind``
        is a fixed word that says how, such as a counter's name."""
        self.failures[pool, backend, kind] += 1
        if self._judges.get((pool, backend)) is None:
            return
        accusers = self._accusers.setdefault((pool, backend), set())
        if client in accusers or len(accusers) >= ACCUSERS:
            return
        accusers.add(client)
        reason = kind.replace("_", " ")
        self._tell(pool, backend, self._judges.suspected((pool, backend), reason, now))

    def noted(self, pool: str, backend: str, kind: str) -> None:
        """The same of a client that has not proven its address: it is counted, and no more."""
        self.failures[pool, backend, kind] += 1

    def _tell(self, pool: str, backend: str, change: Transition | None) -> None:
        if change is not None:
            self._mark(pool, backend, change.up, change.reason, change.since)
