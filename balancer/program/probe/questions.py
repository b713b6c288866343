"""The questions to the endpoints of balancer and bridges, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from balancer.program.probe.wanted import Wanted
from common.adapters.agent import asking, flow_question

PATIENCE = 2.5  # seconds for an answer: a balancer waits for its bridges meanwhile

Answers = Mapping[str, Mapping[str, Any]]
"""By endpoint, what common.adapters.agent.flow_question says."""


def ask(wanted: Wanted, client: str) -> Answers:
    """What the balancer's endpoint answers about the client's connection, or datagram, its bridges
    by way of it, and the others that are named."""
    return asyncio.run(_ask(wanted, client))


async def _ask(wanted: Wanted, client: str) -> Answers:
    balancer, bridges = wanted.balancer, wanted.bridges
    async with asking.session() as http:

        async def one(endpoint: str) -> dict[str, Any]:
            question = flow_question.path(
                client, wanted.service, wanted.protocol, endpoint == balancer
            )
            return await flow_question.ask(http, endpoint, question, PATIENCE)

        first, *others = await asyncio.gather(*map(one, (balancer, *bridges)))
    ahead = first.get("ahead", 0.0)
    relayed = {
        at: {**told, "ahead": told["ahead"] + ahead} if "ahead" in told else told
        for at, told in first.pop("bridges", {}).items()
    }
    return {balancer: first, **relayed, **dict(zip(bridges, others, strict=True))}
