"""The course of a probe: questions, the request, the questions again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from balancer.program.probe import questions
from balancer.program.probe.questions import Answers
from balancer.program.probe.seen import NOTHING, Answer, Seen, Signs, Told
from common.adapters import host_signs
from common.adapters.http_exchange import Connection

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
    unread: bool = False  # nothing is asked: the server is listened to

    @property
    def service(self) -> str:
        return f"{self.vip}:{self.port}"


def run(wanted: Wanted) -> Seen:
    before = questions.ask(wanted.balancer, wanted.bridges, NOBODY, wanted.service)
    here = host_signs.read([wanted.vip]).encode()
    with closing(Connection(wanted.vip, wanted.port, HANDSHAKE)) as made:
        request = again = heard = None
        if made.handshake is not None and wanted.unread:
            heard = made.listen(wanted.patience)
        elif made.handshake is not None:
            request = made.get(wanted.host, wanted.path, wanted.patience)
            if request.reusable and request.failure is None:
                again = made.get(wanted.host, wanted.path, wanted.patience)
        client = f"{made.local[0] or '0.0.0.0'}:{made.local[1] or 1}"
        after = _after(wanted, before, client)
    told = {at: _told(at, before.get(at, NOTHING), answer) for at, answer in after.items()}
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
        unread=wanted.unread,
        heard=heard,
    )


def _after(wanted: Wanted, before: Answers, client: str) -> Answers:
    """The answers now. A balancer that has told nothing before is not waited for once more: without
    what was before, what is now says little."""
    if "trouble" in before[wanted.balancer] and not wanted.bridges:
        return before
    return questions.ask(wanted.balancer, wanted.bridges, client, wanted.service)


def _told(at: str, before: Answer, after: Answer) -> Told:
    trouble = after.get("trouble") or before.get("trouble") or ""
    return Told(at, before, after, float(after.get("ahead", 0.0)), str(trouble))
