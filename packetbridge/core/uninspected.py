"""Connections that nobody reads (``handoff = false``): they begin with the client's own SYN.

The handshake is the server's and the client's: the bridge translates addresses only, and all its
shifts are zero; but where the server sees the bridge's own address, as many clients share that: its
sequence numbers and timestamps are the bridge's own then (see Sources).

A flow is UNHEARD until the server has sent more than a SYN-ACK: until then there may be no socket
that has our mark, so each of the client's packets is sent with it; and half open until its client
has acknowledged what the server said: SYNs with a forged source cost no connection.

As nothing is shifted, a connection that is not known (any more), of a program that was started
anew, goes on as soon as either side sends something. Whether it is one the server judges.
"""

from __future__ import annotations

from common.core import tcp_options
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, MASK, RST, SYN, Segment, is_first
from packetbridge.core import answers, sources, splice
from packetbridge.core.connector import Asked
from packetbridge.core.context import Context, Served
from packetbridge.core.ends import end, give_back_syn
from packetbridge.core.entry import Entry
from packetbridge.core.flow import UNANSWERED, UNHEARD, Flow
from packetbridge.core.flow_table import Flows
from packetbridge.core.opener import Refusal
from packetbridge.core.states import Event, State
from packetbridge.core.story import End


class Unfit(Outcome):
    """Why a SYN was not passed on."""

    BAD_SYN = "bad_syn_flags"


class Passed(Occurrence):
    """Of connections that begin with the client's SYN."""

    SYNS = "syns"  # passed on to the server, the first of a connection and others
    REFUSED = "syns_refused"  # by the server; its RST goes to the client
    PICKED_UP = "flows_picked_up"  # of a connection that was not known (any more)


class Uninspected:
    """One for all flows of such ways in."""

    def __init__(self, context: Context, origins: sources.Sources) -> None:
        self._context = context
        self._sources = origins

    def syn(
        self, entry: Entry, flow: Flow | None, segment: Segment, now: float, draining: bool
    ) -> bytes | None:
        """The verdict on a client's SYN; it is sent on as a packet of this host."""
        context = self._context
        if not is_first(segment.flags):
            return context.ledger.drop(Unfit.BAD_SYN, segment.data)
        segment.check_checksum()
        if flow is not None and flow.state is State.LINGER:
            context.table.remove(flow, Event.REPLACED, now)
            flow = None
        if flow is None:
            flow = Flow(entry, segment.key, segment.seq, 0, now)
            context.begin_story(flow, now)
            refusal = self._refusal(entry, flow, now, draining)
            if refusal is not None:
                answers.refused_syn(context, flow)
                context.tell(flow, f"{End.REFUSED}:{refusal}", now)
                return context.ledger.drop(refusal, segment.data)
            self._begin(flow, segment, now)
        else:
            self._again(flow, segment, now)
        self._send_on(flow, segment)
        return context.ledger.took(Served.UP)

    def pick_up(self, entry: Entry, segment: Segment, now: float) -> Flow | None:
        """A flow for a client's packet of a connection that is not known; None where there is
        nothing to be picked up."""
        known = segment.flags & (SYN | RST | ACK) == ACK and not entry.own_source
        flow = Flow(entry, segment.key, 0, 0, now)
        if not known or not self._picked_up(flow, segment.seq, segment.ack, now):
            return None
        return flow

    def pick_up_down(self, entry: Entry, segment: Segment, now: float) -> Flow | None:
        """The same for a server's packet, whose mark said of which way in it is."""
        if segment.flags & (SYN | RST | ACK) != ACK or entry.own_source or entry.handoff:
            return None
        port = entry.port.to_bytes(2, "big")
        inbound = segment.dst + entry.address + segment.key[10:12] + port
        flow = Flow(entry, inbound, 0, 0, now)
        known = self._context.table.inbound[entry.dscp].get(inbound)  # from another port, then
        if known is not None or not self._picked_up(flow, segment.ack, segment.seq, now):
            return None
        return flow

    def client_says(self, flow: Flow, segment: Segment) -> None:
        """A segment of a client whose server has not been heard, other than a SYN."""
        heard = not flow.marked(UNANSWERED) and segment.flags & (RST | ACK) == ACK
        if heard and segment.ack == flow.client_ack:
            self._context.table.proven(flow)

    def server_says(self, flow: Flow, segment: Segment, now: float) -> None:
        """A segment of a server that had not been heard before."""
        figures = flow.entry.figures
        first = flow.marked(UNANSWERED)
        flow.mark(UNANSWERED, False)
        if segment.flags & RST:
            if first:
                figures.refused += 1
                self._context.ledger.counts[Passed.REFUSED] += 1
            return
        if segment.flags & SYN:
            flow.client_ack = segment.end
            if first:
                figures.opened += 1
                figures.connect.observe(now - flow.began)
                if flow.story is not None:
                    flow.story.connected = now
            return
        flow.mark(UNHEARD, False)
        flow.refresh()
        self._context.table.proven(flow)

    def _refusal(self, entry: Entry, flow: Flow, now: float, draining: bool) -> Refusal | None:
        """Why a new connection is not taken, if it is not; else it has its addresses."""
        if draining:
            return Refusal.DRAINING
        if not entry.up:
            return Refusal.BACKEND_DOWN
        if entry.draining or entry.removed:
            return Refusal.BACKEND_DRAINING
        if not self._has_room(now):
            return Refusal.TABLE_FULL
        client, table = flow.inbound[:4], self._context.table
        port = int.from_bytes(flow.inbound[8:10], "big")
        source = self._sources.source(entry, client, port, table)
        if source is None:
            return Refusal.NO_PORT
        flow.address(source)
        return None

    def _begin(self, flow: Flow, segment: Segment, now: float) -> None:
        context = self._context
        if flow.entry.own_source:
            own = sources.own_isn(context.wall, int.from_bytes(flow.outbound[10:], "big"))
            flow.addressing.seq_up = (own - segment.seq) & MASK
            stamps = tcp_options.timestamps(segment.options)
            if stamps is not None:
                flow.addressing.stamp_up = (sources.own_stamp(context.wall) - stamps[0]) & MASK
        flow.server_ack = (segment.end + flow.seq_up) & MASK
        self._add(flow, UNHEARD | UNANSWERED)
        if context.ledger.verbose:
            context.ledger.event(f"{flow}: SYN")
        context.schedule.add(now + flow.entry.connect, self._unanswered, flow)

    def _again(self, flow: Flow, segment: Segment, now: float) -> None:
        """A SYN of a flow that there is: the server judges. The balancer is told that it need not
        look for another, where the server has answered one already; to it the connection is that of
        the latest SYN, whichever the server takes."""
        flow.seen = now
        if not flow.marked(UNHEARD):
            return
        if flow.c != segment.seq:
            flow.isns = segment.seq.to_bytes(4, "big") + bytes(4)
            if flow.marked(UNANSWERED) and not flow.entry.own_source:
                flow.server_ack = segment.end
        if not flow.marked(UNANSWERED):
            answers.accepted(self._context, flow, segment.seq)

    def _picked_up(self, flow: Flow, server_ack: int, client_ack: int, now: float) -> bool:
        context = self._context
        if not self._has_room(now):
            return False
        flow.address(flow.inbound[:4] + flow.inbound[8:10])
        if flow.outbound in context.table or context.table.was_spliced(flow.outbound, now):
            return False
        context.begin_story(flow, now, known=False)
        flow.server_ack, flow.client_ack = server_ack, client_ack
        context.ledger.counts[Passed.PICKED_UP] += 1
        self._add(flow, UNHEARD)
        return True

    def _add(self, flow: Flow, marks: int) -> None:
        flow.mark(marks, True)
        flow.apply(Event.PASSED_ON)
        crowded_out = self._context.table.add_half_open(flow)
        if crowded_out is not None:
            self._context.ledger.counts[Flows.HALF_OPEN_EVICTED] += 1
            self._let_go(crowded_out, flow.seen)

    def _send_on(self, flow: Flow, segment: Segment) -> None:
        """Send a SYN to the server, with the mark that its socket is to have."""
        context = self._context
        context.ledger.counts[Passed.SYNS] += 1
        translated = splice.up_any(flow, segment)
        flow.entry.figures.up_bytes += len(translated)
        if flow.story is not None:
            flow.story.up_bytes += len(translated)
        context.out.append((flow.entry.mark, translated))

    def _has_room(self, now: float) -> bool:
        """Make some: of the half-open flows the oldest goes, or else the longest idle one."""
        table = self._context.table
        if not table.full():
            return True
        oldest = table.oldest_half_open()
        if oldest is not None:
            self._context.ledger.counts[Flows.HALF_OPEN_EVICTED] += 1
            self._let_go(oldest, now)
            return True
        idle = table.longest_idle(now)
        if idle is None:
            return False
        self._context.ledger.counts[Flows.EVICTED] += 1
        end(self._context, idle, End.EVICTED, now)
        return True

    def _let_go(self, flow: Flow, now: float) -> None:
        """Of a flow that may be nobody's: its server gives it up itself."""
        answers.ended(self._context, flow)
        self._context.table.remove(flow, Event.EXPIRED, now)
        self._context.tell(flow, End.EVICTED, now)

    def _unanswered(self, flow: Flow, now: float) -> None:
        """The server has had its time to answer a SYN."""
        if flow.state is not State.SPLICED or not flow.marked(UNANSWERED):
            return  # or the client has given up
        flow.entry.figures.silent += 1
        self._context.ledger.counts[Asked.SERVER_SILENT] += 1
        give_back_syn(self._context, flow, Asked.SERVER_SILENT, now)
