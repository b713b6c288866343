"""How connections end: by whom, and whether it counts; their balancer is told, once.

Of connections that the kernel has it sees the FINs itself, by the same rules, and reports when both
sides have ended.
"""

from __future__ import annotations

from common.core.ledger import Occurrence
from common.core.segment import ACK, FIN, MASK, RST, Segment, before
from packetbridge.core import answers
from packetbridge.core.context import Context
from packetbridge.core.flow import (
    BOTH,
    CLIENT,
    CLIENT_FIRST,
    DOUBTED,
    FOLLOWED,
    RESET_SHIFT,
    SERVER,
    UNANSWERED,
    Flow,
)
from packetbridge.core.states import Event, State
from packetbridge.core.story import End

ASK_AFTER = 1.0  # seconds after a RST that need not be the client's: the server has it by then


class Doubted(Occurrence):
    """What the server is left to judge."""

    INEXACT_RESET = "inexact_reset"
    SERVER_ASKED = "servers_asked"


def give_back(context: Context, flow: Flow, why: str, now: float) -> Segment:
    """Return ``flow``, in SYN_SENT, to the balancer; gives its first held segment. From now on
    nothing of it goes to either side, but for what ends what the server may have begun."""
    assert flow.opening is not None, "a flow in SYN_SENT has an opening"
    first = flow.opening.in_order((flow.c + 1) & MASK)[0]
    answers.refused(context, flow, first)
    context.reset_server(flow)
    context.table.give_back(flow, now)
    context.table.remove(flow, Event.UNREACHABLE, now)
    context.tell(flow, f"{End.REFUSED}:{why}", now)
    return first


def give_back_syn(context: Context, flow: Flow, why: str, now: float) -> None:
    """Tell the balancer that no server has answered a client's SYN."""
    answers.refused_syn(context, flow)
    context.table.remove(flow, Event.UNREACHABLE, now)
    context.tell(flow, f"{End.REFUSED}:{why}", now)


def end(context: Context, flow: Flow, how: End, now: float) -> None:
    """End ``flow`` for both sides, and tell the balancer; or, where its server has not got anything
    of it yet, give it back."""
    if flow.state is State.SYN_SENT:
        give_back(context, flow, how, now)
        return
    if flow.marked(UNANSWERED) and flow.state is State.SPLICED:
        give_back_syn(context, flow, how, now)
        return
    if flow.state is not State.LINGER:  # they have ended it themselves
        kill(context, flow, how, now)
        return
    context.table.remove(flow, Event.EXPIRED, now)


def kill(context: Context, flow: Flow, how: End, now: float) -> None:
    """End ``flow`` for both sides, and tell the balancer, whatever its state."""
    context.reset_client(flow)
    context.reset_server(flow)
    answers.ended(context, flow)
    context.table.remove(flow, Event.EXPIRED, now)
    context.tell(flow, how, now)


class Ends:
    """Looks at what each side sends, of connections that stand."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def client_says(self, flow: Flow, segment: Segment, now: float) -> None:
        """Look for an end on the client's side, where anyone may send in its name: a RST counts
        with exactly the number that the server expects (RFC 5961 section 3.2), a FIN once the
        server has acknowledged it. Both are passed on in any case: the server judges for itself."""
        if segment.flags & RST:
            self._context.fast.recall(flow)
            if segment.seq != (flow.server_ack - flow.seq_up) & MASK:
                self._context.ledger.counts[Doubted.INEXACT_RESET] += 1
                if not flow.marked(DOUBTED):
                    flow.mark(DOUBTED, True)
                    self._context.schedule.add(now + ASK_AFTER, self._ask_server, flow)
                return
            self._reset(flow, CLIENT, now)
        elif segment.flags & FIN:
            if not flow.fins & CLIENT:
                flow.client_fin = segment.end
                flow.mark(FOLLOWED, False)
        else:
            self._revive(flow, CLIENT)

    def _ask_server(self, flow: Flow, _now: float) -> None:
        """A client that resets while the server has not acknowledged all it sent is exact to the
        server, but not to us, and nobody sends anything more. A keep-alive probe (RFC 9293 section
        3.8.4) is answered by RST where the server has ended, and changes nothing where it has not.
        """
        flow.mark(DOUBTED, False)
        self._context.fast.recall(flow)
        if flow.state in (State.SPLICED, State.CLOSING):
            self._context.ledger.counts[Doubted.SERVER_ASKED] += 1
            ack = flow.client_ack - flow.seq_down
            self._context.to_server(flow, ACK, seq=flow.server_ack - 1, ack=ack)

    def server_has(self, flow: Flow, now: float) -> None:
        """The server has acknowledged something: the client's FIN as well?"""
        reached = (flow.server_ack - flow.seq_up) & MASK
        if flow.client_fin is None or before(reached, flow.client_fin):
            return
        ended, flow.client_fin = reached == flow.client_fin, None
        flow.mark(FOLLOWED, False)
        if ended:  # else bytes beyond it: the FIN was not the client's
            self._fin(flow, CLIENT, now)

    def server_says(self, flow: Flow, segment: Segment, now: float) -> None:
        """Look for an end on the server's side, or one that the kernel saw and could not report."""
        if segment.flags & RST:
            said_nothing = (segment.seq + flow.seq_down) & MASK == (flow.b + 1) & MASK
            if said_nothing and flow.state in (State.SPLICED, State.CLOSING):
                flow.entry.figures.resets += 1
            self._reset(flow, SERVER, now)
        elif segment.flags & FIN:
            self._fin(flow, SERVER, now)
        else:
            self._revive(flow, SERVER)
        if flow.fins & BOTH:
            self._fin(flow, flow.fins & BOTH, now)

    def _reset(self, flow: Flow, side: int, now: float) -> None:
        flow.fins |= side << RESET_SHIFT
        self._apply(
            flow, Event.RESET, End.CLIENT_RESET if side == CLIENT else End.SERVER_RESET, now
        )

    def _fin(self, flow: Flow, sides: int, now: float) -> None:
        if sides == CLIENT and not flow.fins & BOTH:
            flow.mark(CLIENT_FIRST, True)
        flow.fins |= sides
        how = End.CLIENT_FIN if flow.marked(CLIENT_FIRST) else End.SERVER_FIN
        if flow.fins & BOTH and flow.state is State.SPLICED:
            self._apply(flow, Event.FIN_ONE, how, now)
        if flow.fins & BOTH == BOTH and flow.state is State.CLOSING:
            self._apply(flow, Event.FIN_BOTH, how, now)

    def _apply(self, flow: Flow, event: Event, how: End, now: float) -> None:
        """Change state; of an end the balancer and the access log are told, once."""
        before_it = flow.state
        flow.apply(event)
        if flow.state is State.LINGER and before_it is not State.LINGER:
            answers.ended(self._context, flow)
            self._context.tell(flow, how, now)

    def _revive(self, flow: Flow, side: int) -> None:
        """A side that goes on after a RST did not send it: who did, sends only RST from then on."""
        if flow.state is State.LINGER and flow.fins & side << RESET_SHIFT:
            flow.fins = 0
            flow.apply(Event.REVIVED)
            if flow.story is not None:
                flow.story = flow.story.resumed()

    def take_reported(self) -> None:
        """End what the kernel has seen end since this was last asked."""
        context = self._context
        for dscp, inbound, isns, seen in context.fast.endings():
            flow = context.table.inbound[dscp].get(inbound)
            if flow is not None and flow.isns == isns:
                flow.seen = max(flow.seen, seen)
                flow.client_fin = None
                context.fast.forget(flow)  # the next of these addresses and ports is another
                self._fin(flow, BOTH, seen)
        answers.say_ended(context)
