"""The questions to the endpoints of balancer and bridges, all at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import aiohttp

from common.adapters.agent import asking

PATIENCE = 1.0  # seconds for an answer
AT_ONCE = 32
MOST_ANSWER = 1 << 20  # bytes
AGAIN = 0.3  # seconds after which a question that was one too many is asked again

Asked = tuple[dict[str, Any], float, str]
"""The answer, by how many seconds its clock is ahead of this one, and why there is none."""


def ask(endpoints: Iterable[str], client: str, service: str) -> dict[str, Asked]:
    """What each endpoint (ADDRESS:PORT) answers about the connection."""
    return asyncio.run(_ask(list(endpoints), f"/flow?client={client}&service={service}"))


async def _ask(endpoints: list[str], path: str) -> dict[str, Asked]:
    room = asyncio.Semaphore(AT_ONCE)
    async with asking.session() as http:

        async def one(endpoint: str) -> Asked:
            async with room:
                return await _one(http, endpoint, path)

        answers = await asyncio.gather(*map(one, endpoints))
    return dict(zip(endpoints, answers, strict=True))


async def _one(http: aiohttp.ClientSession, endpoint: str, path: str) -> Asked:
    address, _, port = endpoint.partition(":")
    try:
        for attempt in range(2):
            begun = time.time()
            async with asyncio.timeout(PATIENCE):
                status, body = await asking.get(http, address, int(port), path, MOST_ANSWER)
            if status != 429 or attempt:
                break
            await asyncio.sleep(AGAIN)
    except TimeoutError:
        return {}, 0.0, f"no answer within {PATIENCE:g} s"
    except asking.AskError as error:
        return {}, 0.0, str(error)
    return _read(status, body, (begun + time.time()) / 2)


def _read(status: int, body: bytes, asked: float) -> Asked:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or status not in (200, 503):
        return {}, 0.0, f"status {status}: is that of this version?"
    if status != 200:
        return {}, 0.0, str(told.get("reason", f"status {status}"))
    return told, float(told.get("time", asked)) - asked, ""
