"""The questions to the endpoints of balancer and bridges, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from common.adapters.agent import asking, flow_question

PATIENCE = 2.5  # seconds for an answer: a balancer waits for its bridges meanwhile

Answers = Mapping[str, Mapping[str, Any]]
"""By endpoint, what common.adapters.agent.flow_question says."""


def ask(balancer: str, bridges: Sequence[str], client: str, service: str) -> Answers:
    """What the balancer's endpoint answers about the connection, its bridges by way of it, and the
    others that are named."""
    return asyncio.run(_ask(balancer, bridges, client, service))


async def _ask(balancer: str, bridges: Sequence[str], client: str, service: str) -> Answers:
    async with asking.session() as http:

        async def one(endpoint: str) -> dict[str, Any]:
            question = flow_question.path(client, service, endpoint == balancer)
            return await flow_question.ask(http, endpoint, question, PATIENCE)

        first, *others = await asyncio.gather(*map(one, (balancer, *bridges)))
    ahead = first.get("ahead", 0.0)
    relayed = {
        at: {**told, "ahead": told["ahead"] + ahead} if "ahead" in told else told
        for at, told in first.pop("bridges", {}).items()
    }
    return {balancer: first, **relayed, **dict(zip(bridges, others, strict=True))}
