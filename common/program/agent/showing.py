"""What is answered at /health and /metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client.registry import Collector

from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.core.agent_settings import AgentSettings
from common.core.metrics import Row
from common.program.agent.exposition import Snapshot, expose

FRESH = 0.25  # seconds that an answer is used again: asking often costs packets nothing
PATIENCE = 0.8  # seconds for the packet process, so that whoever asks hears within one

Answer = tuple[list[Any], Any]  # items, and what the command results in


class Fresh:
    """What a command results in, asked anew when the last answer is old, for all who ask."""

    def __init__(self, process: PacketProcess, command: str) -> None:
        self._process, self._command = process, command
        self._asking: asyncio.Task[Answer] | None = None
        self._since = 0.0

    async def get(self) -> Answer:
        """Raises CommandError."""
        old = self._asking is None or time.monotonic() >= self._since + FRESH
        if old and (self._asking is None or self._asking.done()):
            self._since = time.monotonic()
            self._asking = asyncio.create_task(self._process.collect(self._command, PATIENCE))
        assert self._asking is not None, "somebody asks"
        return await asyncio.shield(self._asking)


class Showing:
    """The endpoint's handlers. ``own`` gives the agent's own numbers."""

    def __init__(
        self,
        process: PacketProcess,
        settings: Callable[[], AgentSettings],
        own: Callable[[], list[Collector]],
    ) -> None:
        self._settings, self._own = settings, own
        self._health = Fresh(process, "agent-health")
        self._metrics = Fresh(process, "metrics")

    async def health(self, request: web.BaseRequest) -> web.StreamResponse:
        """200 and what the packet process says; 503 where it is down, or silent. ``?pool=NAME``
        asks for that pool alone: 404 where there is none."""
        try:
            items, head = await self._health.get()
        except CommandError as error:
            return _json({"status": "down", "reason": str(error)}, 503)
        body = dict(head)
        for name, item in items:
            body.setdefault(name, []).append(item)
        wanted = request.query.get("pool")
        if wanted is not None:
            pools = [pool for pool in body.get("pools", ()) if pool["name"] == wanted]
            if not pools:
                return _json({"status": "unknown", "reason": "there is no such pool"}, 404)
            body = pools[0]
        return _json(body, 503 if body["status"] == "down" else 200)

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """The packet process's numbers and the agent's own; 503 where the former is silent."""
        try:
            rows: list[Row] = (await self._metrics.get())[0]
        except CommandError as error:
            return web.Response(status=503, text=f"{error}\n")
        accept = request.headers.get("Accept", "")
        collectors = [Snapshot(self._settings().families, rows), *self._own()]
        # In a thread: ten thousand samples take a while, and checks are not to wait for them.
        body, content_type = await asyncio.to_thread(expose, collectors, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})


def _json(body: Any, status: int) -> web.Response:
    text = json.dumps(body) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
