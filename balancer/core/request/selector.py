"""From the first bytes of a connection to a pool and the request's key in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from balancer.core.config import Pool, Route
from balancer.core.request import line
from balancer.core.request.line import Request
from balancer.core.request.verdict import Bad, NeedMore, Reason


class Selected(NamedTuple):
    """Where a request goes, and why; a tuple, which is made in a third of a dataclass's time.

    ``key`` is what the pool chooses a backend by. ``route`` is the name of the route that was met,
    "" for the service's own pool. ``parts`` are those of the key, as the configuration writes them
    (``path``, ``cookie:NAME``); ``missing`` those that the request should have had instead.
    """

    pool: str
    key: bytes
    route: str
    parts: tuple[str, ...]
    missing: tuple[str, ...]
    request: Request


class Selector:
    """The routes and keys of one service. ``default`` is the pool of what no route sends elsewhere;
    without one that is a bad request. ``pools`` are all that are named."""

    __slots__ = ("_default", "needs_fields")

    def __init__(self, routes: Sequence[Route], pools: Sequence[Pool], default: str | None) -> None:
        self.needs_fields = False  # whether header fields decide, or the request line alone
        self._default = default

    def inspect(self, data: bytes, limit: int, source: bytes) -> NeedMore | Bad | Selected:
        """What the first bytes of a connection from ``source`` (4 address bytes) ask for.

        What is needed, the request line or the whole head, must end within ``limit`` bytes. Final:
        more bytes never change another answer than NeedMore. Never raises, whatever the bytes.
        """
        request = line.inspect(data, limit)
        if not isinstance(request, Request):
            return request
        if self._default is None:
            return Bad(Reason.NO_ROUTE)
        return Selected(self._default, request.path, "", ("path",), (), request)

    def may_decide(self, fresh: bytes | bytearray) -> bool:
        """Whether the answer to a connection's bytes can be another than NeedMore now that
        ``fresh`` have come, the first ones and the limit apart."""
        return b"\n" in fresh
