"""The control protocol, as the agent speaks it: JSON lines over the socket that it was given.

A request is ``{"command": NAME, "arguments": {…}}``, its answer ``{"result": …}`` or ``{"error":
"one line"}``; a long list comes in pages before that, each ``{"part": [...]}``. Answers come in the
requests' order.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from contextlib import suppress
from typing import Any

LINE = 8 << 20  # bytes of a line, at most
PENDING = 16  # requests without an answer, at most
PATIENCE = 5.0  # seconds


class CommandError(Exception):
    """The packet process cannot do what it was asked; or has not answered in time."""


class GoneError(CommandError):
    """The packet process has closed the socket."""


class PacketProcess:
    """The other end. ``gone`` is set once it has closed the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._pending: deque[asyncio.Future[tuple[list[Any], Any]]] = deque()
        self.gone = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def at(cls, connected: socket.socket) -> PacketProcess:
        """Over a Unix socket that is connected already."""
        return cls(*await asyncio.open_unix_connection(sock=connected, limit=LINE))

    async def ask(self, command: str, patience: float = PATIENCE, **arguments: Any) -> Any:
        """What ``command`` results in; raises CommandError where there is no result within
        ``patience`` seconds."""
        return (await self.collect(command, patience, **arguments))[1]

    async def collect(
        self, command: str, patience: float = PATIENCE, **arguments: Any
    ) -> tuple[list[Any], Any]:
        """All items of the answer's parts, and what the command results in; as above."""
        if self.gone.is_set():
            raise GoneError("the packet process is gone")
        if len(self._pending) >= PENDING:
            raise CommandError("the packet process has not answered earlier commands")
        answer: asyncio.Future[tuple[list[Any], Any]] = asyncio.get_running_loop().create_future()
        self._pending.append(answer)
        request = {"command": command, "arguments": arguments}
        self._writer.write(json.dumps(request).encode() + b"\n")
        try:
            # An answer that comes too late still comes in its turn: it is awaited, by nobody.
            return await asyncio.wait_for(answer, patience)
        except TimeoutError:
            text = f"the packet process has not answered within {patience:g} s"
            raise CommandError(text) from None

    def close(self) -> None:
        self._reading.cancel()
        self._writer.close()

    async def _read(self) -> None:
        parts: list[Any] = []
        with suppress(ValueError, OSError):  # no JSON, or too much of it: there is no going on
            while line := await self._reader.readline():
                table = json.loads(line)
                if "part" in table:
                    parts += table["part"]
                    continue
                self._answer(table, parts)
                parts = []
        self.gone.set()
        while self._pending:
            self._fail(GoneError("the packet process is gone"))

    def _answer(self, table: dict[str, Any], parts: list[Any]) -> None:
        if "error" in table:
            self._fail(CommandError(str(table["error"])))
            return
        answer = self._pending.popleft()
        if not answer.done():
            answer.set_result((parts, table.get("result")))

    def _fail(self, error: CommandError) -> None:
        answer = self._pending.popleft()
        if not answer.done():
            answer.set_exception(error)
