"""GET /flow?client=ADDRESS:PORT&service=ADDRESS:PORT: what a program and its host know of one
connection, or, with ``&protocol=udp``, of one client's datagrams. Who probes a way asks before and
after, and reads what differs.

With ``&bridges=yes`` a balancer asks its bridges the same and passes their answers on, as clients
need not be able to reach these, nor these them.

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

import aiohttp
from aiohttp import web

from common.adapters import host_signs
from common.adapters.agent import flow_question
from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.program.control.one_flow import COMMAND, TCP, UDP

PER_SECOND = 20
PATIENCE = 0.8  # seconds for the packet process, and for the bridges
AT_ONCE = 16  # bridges
RIGHT = "/flow?client=ADDR:PORT&service=ADDR:PORT, with &protocol=udp for datagrams"
_ENDPOINT = re.compile(r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}):[0-9]{1,5}")

Answer = dict[str, Any]


class OneFlow:
    """The endpoint's handler."""

    def __init__(self, process: PacketProcess, http: aiohttp.ClientSession) -> None:
        self._process, self._http = process, http
        self._asked: deque[float] = deque(maxlen=PER_SECOND)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """200; 400 for a question that is none, 429 where there are too many, 503 where the packet
        process does not answer."""
        asked = {name: request.query.get(name, "") for name in ("client", "service")}
        found = {name: _ENDPOINT.fullmatch(text) for name, text in asked.items()}
        client, protocol = found["client"], request.query.get("protocol", TCP)
        if client is None or found["service"] is None or protocol not in (TCP, UDP):
            return _json({"reason": f"right would be {RIGHT}"}, 400)
        if self._too_often(time.monotonic()):
            return _json({"reason": f"more than {PER_SECOND} questions a second"}, 429)
        try:
            told = await self._process.ask(COMMAND, PATIENCE, **asked, protocol=protocol)
        except CommandError as error:
            return _json({"reason": str(error)}, 503)
        question = flow_question.path(asked["client"], asked["service"], protocol)
        bridges = _bridges(told)
        signs = await asyncio.to_thread(host_signs.read, {client[1], *bridges.values()})
        told |= {"time": time.time(), "host": signs.encode()}
        if "bridges" in request.query:
            told["bridges"] = await self._relayed(list(bridges), question)
        return _json(told, 200)

    def _too_often(self, now: float) -> bool:
        if len(self._asked) == PER_SECOND and now < self._asked[0] + 1.0:
            return True
        self._asked.append(now)
        return False

    async def _relayed(self, endpoints: list[str], question: str) -> dict[str, Answer]:
        async def one(endpoint: str) -> Answer:
            async with self._room:
                return await flow_question.ask(self._http, endpoint, question, PATIENCE)

        answers = await asyncio.gather(*map(one, endpoints))
        return dict(zip(endpoints, answers, strict=True))


def _bridges(told: Answer) -> dict[str, str]:
    """Endpoints and addresses of those to which a balancer sends the service's connections."""
    backends = (told.get("service") or {}).get("backends", ())
    return {f"{each['bridge']}:{each['port']}": each["bridge"] for each in backends}


def _json(body: Any, status: int) -> web.Response:
    text = json.dumps(body) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
