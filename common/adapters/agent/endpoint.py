"""The HTTP endpoint: GET of a few paths, for monitoring and for balancers' checks.

Whoever can reach it can ask; so connections are bounded in number and in time, requests in size.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiohttp import web

MOST_CONNECTIONS = 128
LONGEST = 60.0  # seconds of a connection
HEAD_BYTES = 8190  # of a line or field
AGAIN = 2.0  # seconds between two attempts to listen

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Address = tuple[str, int]

log = logging.getLogger(__name__)


class Endpoint:
    """Answers GET and HEAD of the paths that ``handlers`` has, on the addresses that it is told.

    An address that cannot be had (not there yet, or taken) is tried again every few seconds, and
    said once.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._connections: dict[_Bounded, None] = {}  # the oldest first
        self.evicted = 0  # connections beyond the bound
        self._server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=15.0,
            lingering_time=0.0,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
        )
        self._listening: dict[Address, asyncio.Server] = {}
        self._wanted: frozenset[Address] = frozenset()
        self._changed = asyncio.Event()
        self._said: dict[Address, str] = {}

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def listening(self) -> list[Address]:
        """Where it does, with the ports that 0 has become."""
        return [
            server.sockets[0].getsockname()[:2]
            for server in self._listening.values()
            if server.sockets
        ]

    def listen(self, addresses: frozenset[Address]) -> None:
        """Listen at these from now on, and at no others."""
        self._wanted = addresses
        self._changed.set()

    async def run(self) -> None:
        """Listen as told until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._apply()
                there = self._wanted <= self._listening.keys()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), None if there else AGAIN)
        finally:
            for server in self._listening.values():
                server.close()
            for connection in list(self._connections):
                connection.abort()

    async def _apply(self) -> None:
        for address in self._listening.keys() - self._wanted:
            self._listening.pop(address).close()
            self._said.pop(address, None)
        for address in self._wanted - self._listening.keys():
            await self._open(address)

    async def _open(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        host, port = address
        try:
            self._listening[address] = await loop.create_server(
                self._connection, host, port, family=socket.AF_INET, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            words = os.strerror(error.errno) if error.errno else str(error)
            if self._said.get(address) != words:
                self._said[address] = words
                text = "/health and /metrics: cannot listen at %s port %s: %s; it is tried again"
                log.warning(text, host, port, words)
            return
        self._said.pop(address, None)
        log.info("/health and /metrics at http://%s:%s", host, port)

    def _connection(self) -> asyncio.Protocol:
        return _Bounded(self, self._server())

    def arrived(self, connection: _Bounded) -> None:
        """Take one more, at the cost of the oldest: who holds connections and says nothing must not
        keep a balancer's check out."""
        if len(self._connections) >= MOST_CONNECTIONS:
            self.evicted += 1
            oldest = next(iter(self._connections))
            self.left(oldest)
            oldest.abort()
        self._connections[connection] = None

    def left(self, connection: _Bounded) -> None:
        self._connections.pop(connection, None)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = self._handlers.get(request.path)
        if handler is None:
            known = " ".join(self._handlers)
            return web.Response(status=404, text=f"not here; there are {known}\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="GET it\n")
        return await handler(request)


class _Bounded(asyncio.Protocol):
    """A connection of ``inner``'s that ends at last, however slowly it sends or takes."""

    def __init__(self, endpoint: Endpoint, inner: asyncio.Protocol) -> None:
        self._endpoint, self._inner = endpoint, inner
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._endpoint.arrived(self)
        self._end = asyncio.get_running_loop().call_later(LONGEST, self.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._endpoint.left(self)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()
