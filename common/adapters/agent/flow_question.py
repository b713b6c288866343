"""The question GET /flow to an endpoint of balancer or bridge, and what comes back."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp

from common.adapters.agent import asking

MOST_ANSWER = 4 << 20  # bytes


def path(client: str, service: str, protocol: str, bridges: bool = False) -> str:
    """``client`` and ``service`` are ADDRESS:PORT, ``protocol`` tcp or udp. A balancer is to ask
    its ``bridges``, too."""
    asked = f"/flow?client={client}&service={service}&protocol={protocol}"
    return asked + "&bridges=yes" * bridges


async def ask(
    http: aiohttp.ClientSession, endpoint: str, asked: str, patience: float
) -> dict[str, Any]:
    """The answer of an endpoint (ADDRESS:PORT), and in ``ahead`` by how many seconds its host's
    clock is ahead of this one's; {"trouble": WORDS} where there is none within ``patience``
    seconds."""
    address, _, port = endpoint.partition(":")
    begun = time.time()
    try:
        async with asyncio.timeout(patience):
            status, body = await asking.get(http, address, int(port), asked, MOST_ANSWER)
    except TimeoutError:
        return {"trouble": f"no answer within {patience:g} s"}
    except asking.AskError as error:
        return {"trouble": str(error)}
    told = _table(body)
    if told is None or status not in (200, 429, 503):
        return {"trouble": f"status {status}: is that of this version?"}
    if status != 200:
        return {"trouble": str(told.get("reason", f"status {status}"))}
    middle = (begun + time.time()) / 2
    return {**told, "ahead": float(told.get("time", middle)) - middle}


def _table(body: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
