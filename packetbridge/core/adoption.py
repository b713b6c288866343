"""After a restart: the connections that the kernel went on translating become flows again.

Each as soon as one of its packets comes up to Python, and all of them little by little, so that
idle ones expire.
"""

from __future__ import annotations

from packetbridge.core import answers
from packetbridge.core.context import Context
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import Fast, Former
from packetbridge.core.flow import (
    ANSWERED,
    BOTH,
    CLIENT,
    CLIENT_FIRST,
    FOLLOWED,
    IN_KERNEL,
    RECORDED,
    RESET_SHIFT,
    Flow,
)
from packetbridge.core.states import State
from packetbridge.core.story import End

AT_ONCE = 64  # records looked at in one go, so that packets are not held up


class Adoption:
    """Over once all have been looked at: ``pending`` is false from then on."""

    def __init__(self, context: Context, entries: dict[tuple[bytes, int, int], Entry]) -> None:
        self._context = context
        self._entries = entries
        self.pending = True

    def find(self, key: bytes, dscp: int | None, now: float) -> Flow | None:
        """The flow of a packet that the table knows none for; ``dscp`` None for a server's."""
        former = self._context.fast.former(key, dscp)
        return None if former is None else self._take(former, now)

    def step(self, now: float) -> None:
        """Take some more."""
        formers = self._context.fast.formers(AT_ONCE)
        self.pending = formers is not None
        for former in formers or ():
            if former.inbound not in self._context.table.inbound[former.dscp]:
                self._take(former, now)

    def _take(self, former: Former, now: float) -> Flow | None:
        """A flow as of before; None, and no records either, where its way in or its server is not
        configured any more, or the table is full."""
        context, inbound = self._context, former.inbound
        port = int.from_bytes(inbound[10:12], "big")
        entry = self._entries.get((inbound[4:8], former.dscp, port))
        if entry is None or entry.server_key != former.server or context.table.full():
            context.fast.drop(former)
            context.ledger.counts[Fast.NOT_ADOPTED] += 1
            return None
        flow = Flow(entry, inbound, former.c, former.b, min(former.seen or now, now))
        flow.address(former.source)
        if entry.own_source:
            flow.addressing.seq_up, flow.addressing.stamp_up = former.seq_up, former.stamp_up
        flow.seq_down, flow.stamp_down = former.seq_down, former.stamp_down
        flow.up_window, flow.down_window = former.up_window, former.down_window
        flow.client_ack, flow.server_ack = former.client_ack, former.server_ack
        flow.fins, flow.client_fin = former.fins, former.client_fin
        flow.state = _state(former.fins)
        flow.refresh()
        flow.mark(RECORDED | FOLLOWED | ANSWERED, True)
        flow.mark(CLIENT_FIRST, former.client_first)
        flow.mark(IN_KERNEL, not former.slow)
        context.table.adopt(flow)
        context.begin_story(flow, now, known=False)
        context.fast.follow(flow)
        if flow.state is State.LINGER:
            answers.ended(context, flow)  # while nobody was there to say so
            first = End.CLIENT_FIN if former.client_first else End.SERVER_FIN
            reset = former.fins >> RESET_SHIFT
            by = End.CLIENT_RESET if reset & CLIENT else End.SERVER_RESET
            context.tell(flow, by if reset else first, now)
        context.ledger.counts[Fast.ADOPTED] += 1
        return flow


def _state(fins: int) -> State:
    if fins >> RESET_SHIFT or fins & BOTH == BOTH:
        return State.LINGER
    return State.CLOSING if fins else State.SPLICED
