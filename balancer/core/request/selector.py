"""From the first bytes of a connection to a pool, and to the request's key in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from balancer.core.request import line
from balancer.core.request.asked import Asked, Reader
from balancer.core.request.http2 import message as http2
from balancer.core.request.http2.reader import Reader as Http2Reader
from balancer.core.request.keys import Key
from balancer.core.request.line import Request
from balancer.core.request.routes import Routes
from balancer.core.request.verdict import Bad, NeedMore, Reason

if TYPE_CHECKING:
    from balancer.core.config import Pool, Route

_PATH = ("path",)
_HTTP2 = Bad(Reason.HTTP2_PREFACE)  # of the request line: it begins like HTTP/2's preface


class Selected(NamedTuple):
    """Where a request goes, and why; a tuple, which is made in a third of a dataclass's time.

    ``key`` is what the pool chooses a backend by. ``route`` is the name of the route that was met,
    "" for the service's own pool. ``parts`` are what the key is made of, as the configuration
    writes them (``path``, ``cookie:NAME``; ``keys.shown`` tells them apart again); ``missing`` what
    the request lacks of the pool's key. ``http`` is the version that the client speaks, 1 or 2;
    0: another protocol.
    """

    pool: str
    key: bytes
    route: str
    parts: tuple[str, ...]
    missing: tuple[str, ...]
    request: Request
    http: int = 1


class Selector:
    """The routes and keys of one service. ``default`` is the pool of what no route sends elsewhere;
    without one that is a bad request. ``pools`` are all that these name."""

    __slots__ = (
        "_by_path",
        "_default",
        "_http2_reader",
        "_keys",
        "_reader",
        "_routes",
        "needs_fields",
    )

    def __init__(self, routes: Sequence[Route], pools: Sequence[Pool], default: str | None) -> None:
        self._routes = Routes(routes) if routes else None
        self._default = default
        self._keys = {pool.name: Key(pool) for pool in pools}
        names = {name for route in routes for name, _ in route.header}
        names |= {name for key in self._keys.values() for name in key.names}
        host = any(route.host for route in routes) or any(k.needs_host for k in self._keys.values())
        self.needs_fields = host or bool(names)  # or the request line alone decides
        self._reader = Reader(names, host=host)
        self._http2_reader = Http2Reader(names, host=host)
        # The usual case has a way of its own: one pool, and the path is the key.
        usual = not routes and default is not None and self._keys[default].parts == _PATH
        self._by_path = default if usual else None

    def inspect(self, data: bytes, limit: int, source: bytes) -> NeedMore | Bad | Selected:
        """What the first bytes of a connection from ``source`` (4 address bytes) ask for.

        What is needed, the request line or the whole head (in HTTP/2 always), must end within
        ``limit`` bytes. HTTP/2 is known by its preface (RFC 9113 section 3.3). Final:
        more bytes never change another answer than NeedMore. Never raises, whatever the bytes.
        """
        request = line.inspect(data, limit)
        if not isinstance(request, Request):
            return self._inspect_http2(data, limit, source) if request == _HTTP2 else request
        if self._by_path is not None:
            return Selected(self._by_path, request.path, "", _PATH, (), request)
        if not self.needs_fields:
            return self._select(Asked(request, source, b"", {}))
        asked = self._reader.read(request, data, limit, source)
        return self._select(asked) if isinstance(asked, Asked) else asked

    def may_decide(self, data: bytes | bytearray, had: int) -> bool:
        """Whether the bytes behind the first ``had`` can have changed the answer from NeedMore.
        Those that reach the limit can, too, and the first ones."""
        return data.find(b"\n", had) >= 0 or data.startswith(b"PRI ")

    def _inspect_http2(self, data: bytes, limit: int, source: bytes) -> NeedMore | Bad | Selected:
        message = http2.inspect(data, limit)
        if not isinstance(message, http2.Message):
            return message
        asked = self._http2_reader.read(message, source)
        found = self._select(asked) if isinstance(asked, Asked) else asked
        return found._replace(http=2) if isinstance(found, Selected) else found

    def _select(self, asked: Asked) -> Bad | Selected:
        route = self._routes.find(asked) if self._routes is not None else None
        pool = self._default if route is None else route.pool
        if pool is None:
            return Bad(Reason.NO_ROUTE, asked.request)
        name = "" if route is None else route.name
        key, parts, missing = self._keys[pool].of(asked)
        return Selected(pool, key, name, parts, missing, asked.request)
