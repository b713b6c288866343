"""GET /flow?client=ADDRESS:PORT&service=ADDRESS:PORT: what a program and its host know of one
connection. Who probes a way asks before and after, and reads what differs.

Whoever can reach the endpoint can ask: at most PER_SECOND times, so that packets do not wait for it
and /health does not, either.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from typing import Any

from aiohttp import web

from common.adapters import host_signs
from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.program.control.one_flow import COMMAND

PER_SECOND = 20
PATIENCE = 0.8  # seconds for the packet process, so that whoever asks hears within one
_ENDPOINT = re.compile(r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}):[0-9]{1,5}")


class OneFlow:
    """The endpoint's handler."""

    def __init__(self, process: PacketProcess) -> None:
        self._process = process
        self._asked: deque[float] = deque(maxlen=PER_SECOND)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """200; 400 for a question that is none, 429 where there are too many, 503 where the packet
        process does not answer."""
        asked = {name: request.query.get(name, "") for name in ("client", "service")}
        found = {name: _ENDPOINT.fullmatch(text) for name, text in asked.items()}
        client = found["client"]
        if client is None or found["service"] is None:
            return _json({"reason": "right would be /flow?client=ADDR:PORT&service=ADDR:PORT"}, 400)
        if self._too_often(time.monotonic()):
            return _json({"reason": f"more than {PER_SECOND} questions a second"}, 429)
        try:
            told = await self._process.ask(COMMAND, PATIENCE, **asked)
        except CommandError as error:
            return _json({"reason": str(error)}, 503)
        signs = await asyncio.to_thread(host_signs.read, {client[1], *_bridges(told)})
        return _json({**told, "time": time.time(), "host": signs.encode()}, 200)

    def _too_often(self, now: float) -> bool:
        if len(self._asked) == PER_SECOND and now < self._asked[0] + 1.0:
            return True
        self._asked.append(now)
        return False


def _bridges(told: dict[str, Any]) -> set[str]:
    """Where a balancer sends the service's connections."""
    service = told.get("service") or {}
    return {backend["bridge"] for backend in service.get("backends", ())}


def _json(body: Any, status: int) -> web.Response:
    text = json.dumps(body) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
