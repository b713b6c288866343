"""Which of the bridge's servers are well, by their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.core.health import Judge, Judges
from packetbridge.core.config import Backend

Who = tuple[str, int, tuple[int, ...]]
"""A configured backend: its address, its port, and its DSCPs (none: all)."""

Mark = Callable[[str, int, tuple[int, ...], bool, str, float], None]
"""Of a backend: whether its server is up, why not, and when (monotonic seconds)."""


def who(backend: Backend) -> Who:
    """What a configured backend is known by."""
    return backend.address, backend.port, backend.dscps


class ServerHealth:
    """Judges the servers that have a check, and tells ``mark`` what changes."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._judges: Judges[Who] = Judges()
        self._down: set[Who] = set()

    def follow(self, backends: Iterable[Backend], now: float) -> None:
        """Judge the servers of these from now on. One that is not checked any more is taken for
        well: nobody would bring it back."""
        backends = tuple(backends)
        checked = {
            who(backend): (backend.check.rise, backend.check.fall)
            for backend in backends
            if backend.check is not None
        }
        for gone in self._down & {who(backend) for backend in backends} - checked.keys():
            self._mark(*gone, True, "", now)
        self._down &= checked.keys()
        self._judges.follow(checked, now)

    def judge(self, backend: Backend) -> Judge | None:
        """The judge of a backend's server; None where it is not checked."""
        return self._judges.get(who(backend))

    def checked(self, target: Who, well: bool, reason: str, now: float) -> None:
        """The result of a check."""
        change = self._judges.checked(target, well, reason, now)
        if change is None:
            return
        if change.up:
            self._down.discard(target)
        else:
            self._down.add(target)
        self._mark(*target, change.up, change.reason, change.since)
