"""From the first bytes of a TLS connection to a pool, and to the connection's key in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from balancer.core.request.asked import Asked
from balancer.core.request.keys import Key
from balancer.core.request.line import Request
from balancer.core.request.routes import Routes
from balancer.core.request.selector import Selected
from balancer.core.request.tls import client_hello
from balancer.core.request.tls.client_hello import ClientHello
from balancer.core.request.verdict import Bad, NeedMore, Reason

if TYPE_CHECKING:
    from balancer.core.config import Pool, Route

NO_HTTP = 0  # see Selected.http
METHOD = b"TLS"  # in the place of HTTP's, where a request is told of


class TlsSelector:
    """The routes and keys of one service, as balancer.core.request.selector.Selector has them of
    HTTP: the server's name is the host; there are no paths, methods and fields."""

    __slots__ = ("_default", "_keys", "_routes")

    def __init__(
        self,
        routes: Sequence[Route],
        pools: Sequence[Pool],
        default: str | None,
        natural: tuple[str, ...] = ("sni",),
    ) -> None:
        self._routes = Routes(routes) if routes else None
        self._default = default
        self._keys = {pool.name: Key(pool, natural) for pool in pools}

    def inspect(self, data: bytes, limit: int, source: bytes) -> NeedMore | Bad | Selected:
        """What the first bytes of a connection from ``source`` (4 address bytes) ask for.

        The ClientHello must end within ``limit`` bytes. Final: more bytes never change another
        answer than NeedMore. Never raises, whatever the bytes.
        """
        hello = client_hello.inspect(data, limit)
        if not isinstance(hello, ClientHello):
            return hello
        name, protocols = hello
        asked = Asked(Request(METHOD, name, b"", 0), source, name, {}, protocols)
        route = self._routes.find(asked) if self._routes is not None else None
        pool = self._default if route is None else route.pool
        if pool is None:
            return Bad(Reason.NO_ROUTE, asked.request)
        key, parts, missing = self._keys[pool].of(asked)
        said = "" if route is None else route.name
        return Selected(pool, key, said, parts, missing, asked.request, NO_HTTP)

    def may_decide(self, data: bytes | bytearray, had: int) -> bool:
        """Whether the bytes behind the first ``had`` can have changed the answer from NeedMore:
        that says itself from which on."""
        return len(data) > had
