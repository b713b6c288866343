"""Which of the bridge's servers are well, by their checks."""

from __future__ import annotations

from collections.abc import Iterable

from common.core.health import Judge, Judges, Transition
from packetbridge.core.config import Backend

Who = tuple[str, str, int, tuple[int, ...], str, int]
"""A configured backend: protocol, address, port, and DSCPs (none: all); its server's address and
port."""


def who(backend: Backend) -> Who:
    """What a configured backend is known by: with another server it is another one."""
    at = backend.protocol, backend.address, backend.port, backend.dscps
    return (*at, backend.server_address, backend.server_port)


class ServerHealth:
    """Judges the servers that have a check."""

    def __init__(self) -> None:
        self._judges: Judges[Who] = Judges()

    def follow(self, backends: Iterable[Backend], now: float) -> None:
        """Judge the servers of these from now on, and no others."""
        checked = {
            who(backend): (backend.check.rise, backend.check.fall)
            for backend in backends
            if backend.check is not None
        }
        self._judges.follow(checked, now)

    def judge(self, backend: Backend) -> Judge | None:
        """The judge of a backend's server; None where it is not checked: it is taken for well."""
        return self._judges.get(who(backend))

    def checked(self, target: Who, well: bool, reason: str, now: float) -> Transition | None:
        """The result of a check; what changes by it."""
        return self._judges.checked(target, well, reason, now)
