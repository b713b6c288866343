"""Opening: what a handoff begins, and what the client sends until that is a spliced connection.

The bridge opens its own connection with the server, in the client's name, and sends what was handed
over as its first data. Until the server has acknowledged that, the flow has an Opening.
"""

from __future__ import annotations

from common.core import handoff
from common.core.handoff import Kind
from common.core.ledger import Occurrence, Outcome
from common.core.segment import FIN, MASK, RST, Segment
from packetbridge.core import answers, credentials, sources
from packetbridge.core.clock import Clock
from packetbridge.core.connector import Connector
from packetbridge.core.context import Context
from packetbridge.core.early import Early
from packetbridge.core.ends import end
from packetbridge.core.entry import Entry
from packetbridge.core.flow import FOLLOWED, Flow
from packetbridge.core.flow_table import Flows
from packetbridge.core.opening import Opening
from packetbridge.core.states import Event, State
from packetbridge.core.story import End


class Refusal(Outcome):
    """Why a handoff was not taken, or a client's packet while the server is being asked."""

    NOT_A_HANDOFF = "not_a_handoff"  # our option, but not from a balancer to a bridge
    REPLAYED = "handoff_again"  # a late or replayed handoff of a connection that is over
    DRAINING = "draining"  # the bridge is about to stop
    BACKEND_DRAINING = "backend_draining"  # the operator wants no new connections there, or it is
    # not configured any more
    BACKEND_DOWN = "backend_down"  # as its check has found
    TABLE_FULL = "flow_table_full"
    NO_PORT = "no_source_port"
    HELD_FULL = "held_full"
    NOT_THE_CLIENTS = "bad_ack_before_spliced"
    INEXACT_RESET = "reset_before_spliced"  # RFC 5961 section 3.2


class Taken(Outcome):
    """What became of one that was good for something."""

    HANDOFF = "handoff_taken"
    FORGET = "forget"  # the balancer's word that a flow is over
    HELD = "held"
    EARLY_ACK = "ack_before_spliced"
    CLIENT_RESET = "client_reset"


class Openings(Occurrence):
    """Of flows that are being opened."""

    AGAIN = "handoffs_again"  # of a flow that there is; it goes on as a plain segment
    EARLY = "early_segments"  # that came before their handoff


class Opener:
    """Handoffs and what follows of them; one for all flows."""

    def __init__(self, context: Context, connector: Connector, origins: sources.Sources) -> None:
        self._context = context
        self._connector = connector
        self._sources = origins
        self._clock = Clock(context)
        self.early = Early()
        self.draining = False  # nothing new is opened

    def take(self, entry: Entry, segment: Segment, option: bytes, now: float) -> Flow | None:
        """Check a handoff. Gives the live flow that ``segment`` is to be treated as a plain segment
        of; None where it opened a flow, ended one or was dropped."""
        context, drop = self._context, self._context.ledger.drop
        message = handoff.decode(option)
        if message.kind is Kind.ASK_TIME:
            self._clock.tell(entry, segment, option, now)
            return None
        handing = message.kind in (Kind.HANDOFF, Kind.HANDOFF_CONFIRM)
        if message.kind >= Kind.ACCEPTED or (handing and not entry.handoff):
            drop(Refusal.NOT_A_HANDOFF, segment.data)
            return None
        flow = context.table.inbound[entry.dscp].get(segment.key)
        b = (segment.ack - 1) & MASK
        # Bytes that the balancer owns may follow the first: then the flow knows where it began.
        known = flow is not None and flow.b == b and message.kind is Kind.HANDOFF_CONFIRM
        c = flow.c if flow is not None and known else (segment.seq - 1) & MASK
        client_key = segment.key[:4] + entry.vip + segment.key[8:]
        binding = handoff.Binding(client_key, c, b, segment.seq)
        attempt = credentials.believed(context, entry, segment, option, binding)
        if attempt is None:
            return None
        if flow is not None and (flow.c, flow.b) == (c, b):
            return self._same(flow, message.kind, attempt, segment, now)
        new = Flow(entry, segment.key, c, b, now, attempt)
        if message.kind is Kind.FORGET:
            context.table.disown(new, now)  # should it have overtaken the handoff
            context.ledger.took(Taken.FORGET)
            return None
        self._open(new, segment, message, flow, now)
        return None

    def hold(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """A client's segment while the server is being asked."""
        context, opening = self._context, flow.opening
        assert opening is not None, "a flow in SYN_SENT has an opening"
        segment.check_checksum()  # what is held is built anew when sent, checksum and all
        if not segment.flags & RST and segment.ack != (flow.b + 1) & MASK:
            # The client has had no byte yet, so there is nothing else for it to acknowledge.
            return context.ledger.drop(Refusal.NOT_THE_CLIENTS, segment.data)
        if segment.flags & RST:
            if segment.seq != opening.next_lacking((flow.c + 1) & MASK):
                return context.ledger.drop(Refusal.INEXACT_RESET, segment.data)
            answers.ended(context, flow)
            context.table.remove(flow, Event.RESET, now)
            context.tell(flow, End.CLIENT_RESET, now)
            return context.ledger.took(Taken.CLIENT_RESET)
        if not segment.payload and not segment.flags & FIN:
            opening.note(segment)
            return context.ledger.took(Taken.EARLY_ACK)
        if not self._keep(opening, segment):
            return context.ledger.drop(Refusal.HELD_FULL, segment.data)
        return context.ledger.took(Taken.HELD)

    def owe(self, flow: Flow, segment: Segment) -> None:
        """Bytes that the balancer owns, for a flow that is spliced: keep them and say so."""
        opening = flow.opening
        if opening is None:
            self._context.fast.recall(flow)
            answers.accepted(self._context, flow, (flow.server_ack - flow.seq_up) & MASK)
            return
        if self._keep(opening, segment):
            opening.owe(segment)
            self._connector.accept(flow, opening)

    def _keep(self, opening: Opening, segment: Segment) -> bool:
        """Hold a segment, if there is room."""
        table = self._context.table
        kept = opening.hold(segment) if table.may_hold() else None
        table.held_bytes += kept or 0
        return kept is not None

    def _same(
        self, flow: Flow, kind: Kind, attempt: int, segment: Segment, now: float
    ) -> Flow | None:
        context = self._context
        if kind is Kind.FORGET:
            context.ledger.took(Taken.FORGET)
            if attempt >= flow.attempt:  # else of an attempt before, which we know is over
                context.reset_server(flow)
                context.table.disown(flow, now)
                context.table.remove(flow, Event.REPLACED, now)
                context.tell(flow, End.FORGOTTEN, now)
            return None
        flow.tried(attempt)
        context.ledger.counts[Openings.AGAIN] += 1
        flow.mark(FOLLOWED, False)  # the kernel took it for a new incarnation's
        if kind is Kind.HANDOFF_CONFIRM:
            if flow.state is State.SYN_SENT and flow.opening is not None:
                flow.opening.owe(segment)
            else:
                self.owe(flow, segment)
        return flow

    def _open(
        self, flow: Flow, segment: Segment, message: handoff.Handoff, old: Flow | None, now: float
    ) -> None:
        context, table, ledger = self._context, self._context.table, self._context.ledger
        entry = flow.entry
        if table.was_given_back(flow, now):
            answers.refused(context, flow, segment)
            ledger.drop(Refusal.REPLAYED, segment.data)
            return
        if table.was_closed(flow, now):
            if not table.is_elsewhere(entry.dscp, segment.key, now):
                answers.ended(context, flow)  # so that nobody takes this bridge for silent
            ledger.drop(Refusal.REPLAYED, segment.data)
            return
        if old is not None:
            context.reset_server(old)
            table.remove(old, Event.REPLACED, now)
            context.tell(old, End.REPLACED, now)
        context.begin_story(flow, now)
        if self.draining or entry.draining or entry.removed or not entry.up:
            closed = Refusal.DRAINING if self.draining else Refusal.BACKEND_DRAINING
            self._refuse(flow, segment, closed if entry.up else Refusal.BACKEND_DOWN, now)
            return
        opening = Opening(message, segment)
        has_room = not table.full() or self._has_made_room(now)
        source = self._sources.source(entry, segment.src, segment.sport, table)
        if source is None or not has_room or not table.may_hold():
            full = Refusal.HELD_FULL if has_room else Refusal.TABLE_FULL
            self._refuse(flow, segment, Refusal.NO_PORT if source is None else full, now)
            return
        flow.address(source)
        flow.opening = opening
        wall = context.wall
        opening.isn = flow.c
        if entry.own_source:
            opening.isn = sources.own_isn(wall, int.from_bytes(source[4:], "big"))
            if opening.stamp is not None:
                flow.addressing.stamp_up = (sources.own_stamp(wall) - opening.stamp) & MASK
            flow.addressing.seq_up = (opening.isn - flow.c) & MASK
        table.held_bytes += opening.hold(segment) or 0
        if message.kind is Kind.HANDOFF_CONFIRM:
            opening.owe(segment)
        table.add(flow)
        if ledger.verbose:
            ledger.event(f"{flow}: handoff, rtt {message.rtt} ms")
        ledger.took(Taken.HANDOFF)
        for overtaking in self.early.take(entry.dscp, segment.key, now):
            if overtaking.ack == segment.ack and self._keep(opening, overtaking):
                ledger.counts[Openings.EARLY] += 1
        self._connector.ask(flow, opening, now)

    def _refuse(self, flow: Flow, segment: Segment, reason: Refusal, now: float) -> None:
        """Give a handoff back before anything was done about it."""
        answers.refused(self._context, flow, segment)
        self._context.table.give_back(flow, now)
        self._context.ledger.drop(reason, segment.data)
        self._context.tell(flow, f"{End.REFUSED}:{reason}", now)

    def _has_made_room(self, now: float) -> bool:
        """End the longest idle flow in favour of a new one."""
        idle = self._context.table.longest_idle(now)
        if idle is None:
            return False
        self._context.ledger.counts[Flows.EVICTED] += 1
        end(self._context, idle, End.EVICTED, now)
        return True
