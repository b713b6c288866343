"""The course of a probe: questions, the request, the questions again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from balancer.program.probe import questions
from balancer.program.probe.questions import Asked
from balancer.program.probe.seen import NOTHING, Answer, Seen, Signs, Told
from common.adapters import host_signs
from common.adapters.http_exchange import Connection

MOST_BRIDGES = 64
NOBODY = "0.0.0.0:1"  # before there is a connection
HANDSHAKE = 3.5  # seconds: three SYNs, and the time in which the kernel gives up on a neighbour


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for, and whom: ``balancer`` and ``bridges`` are endpoints, ADDRESS:PORT."""

    vip: str
    port: int
    host: str
    path: str
    balancer: str
    bridges: Sequence[str]
    patience: float

    @property
    def service(self) -> str:
        return f"{self.vip}:{self.port}"


def run(wanted: Wanted) -> Seen:
    before = questions.ask([wanted.balancer], NOBODY, wanted.service)
    bridges = _bridges(wanted, before[wanted.balancer][0])
    before |= questions.ask(bridges, NOBODY, wanted.service)
    here = host_signs.read([wanted.vip]).encode()
    with closing(Connection(wanted.vip, wanted.port, HANDSHAKE)) as made:
        request = again = None
        if made.handshake is not None:
            request = made.get(wanted.host, wanted.path, wanted.patience)
            if request.reusable and request.failure is None:
                again = made.get(wanted.host, wanted.path, wanted.patience)
        client = f"{made.local[0] or '0.0.0.0'}:{made.local[1] or 1}"
        after = questions.ask(before, client, wanted.service)
    told = _told(before, after)
    return Seen(
        vip=wanted.vip,
        port=wanted.port,
        client=client,
        handshake=made.handshake,
        failure=made.failure,
        words=made.words,
        request=request,
        again=again,
        own=Signs(here, host_signs.read([wanted.vip]).encode()),
        balancer=told.pop(wanted.balancer),
        bridges={each.address: each for each in told.values()},
    )


def _bridges(wanted: Wanted, answer: Answer) -> list[str]:
    """Those that were named, and those that the balancer names, as far as there is room."""
    service = answer.get("service") or NOTHING
    listed = [f"{each['bridge']}:{each['port']}" for each in service.get("backends", ())]
    return list(dict.fromkeys([*wanted.bridges, *listed]))[:MOST_BRIDGES]


def _told(before: Mapping[str, Asked], after: Mapping[str, Asked]) -> dict[str, Told]:
    return {at: _one(at, before[at], after[at]) for at in _both(before, after)}


def _both(before: Mapping[str, Asked], after: Mapping[str, Asked]) -> Iterable[str]:
    return [at for at in before if at in after]


def _one(at: str, before: Asked, after: Asked) -> Told:
    return Told(at, before[0], after[0], after[1], before[2] or after[2])
