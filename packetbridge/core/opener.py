"""Opening: from a handoff to a spliced connection, or to a refusal.

The bridge opens its own connection with the server, in the client's name, and sends what was handed
over as its first data. Until the server has acknowledged that, the flow has an Opening.
"""

from __future__ import annotations

from common.core import handoff, tcp_options
from common.core.handoff import Kind
from common.core.ledger import Occurrence, Outcome
from common.core.segment import (
    ACK,
    FIN,
    MASK,
    PSH,
    RST,
    SYN,
    Segment,
    before,
)
from common.core.tcp_options import NO_SCALE
from packetbridge.core import answers, credentials, sources, stamper
from packetbridge.core.context import Context
from packetbridge.core.early import Early
from packetbridge.core.ending import end_idle
from packetbridge.core.entry import Entry
from packetbridge.core.flow import FOLLOWED, Flow
from packetbridge.core.flow_table import Flows
from packetbridge.core.opening import Opening
from packetbridge.core.splice import shifted
from packetbridge.core.states import Event, State

SYN_WAITS = (1.0, 2.0, 4.0, 3.0)  # SYNs at 0, 1, 3 and 7 seconds; given up at 10
OTHER_PORT_AT = 2  # the SYN, counted from 0, that comes from another port
OWED_AFTER = 0.2  # seconds to the first retransmission of owed bytes, doubled at each
OWED_TRIES = 6
NO_TIMESTAMPS_SECONDS = 600.0  # that a server without timestamps is believed to stay so
TIME_WAIT_RESETS = 2  # of one opening


class Refusal(Outcome):
    """Why a handoff was not taken, or a packet of a flow that is being opened."""

    NOT_A_HANDOFF = "not_a_handoff"  # our option, but not from a balancer to a bridge
    REPLAYED = "handoff_again"  # a late or replayed handoff of a connection that is over
    TABLE_FULL = "flow_table_full"
    NO_PORT = "no_source_port"
    SERVER_RESET = "backend_refused"
    HELD_FULL = "held_full"
    NOT_THE_CLIENTS = "bad_ack_before_spliced"
    INEXACT_RESET = "reset_before_spliced"  # RFC 5961 section 3.2
    BAD_SYN_ACK = "bad_backend_syn_ack"
    LATE_SYN_ACK = "late_backend_syn_ack"


class Taken(Outcome):
    """What became of a packet of a flow that is being opened, and was good for something."""

    HANDOFF = "handoff_taken"
    FORGET = "forget"  # the balancer's word that a flow is over
    HELD = "held"
    EARLY_ACK = "ack_before_spliced"
    CLIENT_RESET = "client_reset"
    SYN_ACK = "backend_syn_ack"
    TIME_WAIT = "backend_time_wait"  # the server's answer from an earlier connection


class Openings(Occurrence):
    """Of flows that are being opened."""

    AGAIN = "handoffs_again"  # of a flow that there is; it goes on as a plain segment
    EARLY = "early_segments"  # that came before their handoff
    TIME_WAIT_RESETS = "time_wait_resets"
    UNSAMPLED = "handshakes_unsampled"
    SERVER_SILENT = "backend_silent"
    OWED_LOST = "owed_bytes_unacknowledged"


class Opener:
    """Handoffs and what follows of them; one for all flows."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sources = sources.Sources()
        self.early = Early()

    def take(self, entry: Entry, segment: Segment, option: bytes, now: float) -> Flow | None:
        """Check a handoff. Gives the live flow that ``segment`` is to be treated as a plain segment
        of; None where it opened a flow, ended one or was dropped."""
        context, drop = self._context, self._context.ledger.drop
        message = handoff.decode(option)
        if message.kind >= Kind.ACCEPTED:
            drop(Refusal.NOT_A_HANDOFF, segment.data)
            return None
        flow = context.table.inbound[entry.dscp].get(segment.key)
        b = (segment.ack - 1) & MASK
        # Bytes that the balancer owns may follow the first: then the flow knows where it began.
        known = flow is not None and flow.b == b and message.kind is Kind.HANDOFF_CONFIRM
        c = flow.c if flow is not None and known else (segment.seq - 1) & MASK
        client_key = segment.key[:4] + entry.vip + segment.key[8:]
        binding = handoff.Binding(client_key, c, b, segment.seq)
        if not credentials.believed(context, entry, segment, option, binding):
            return None
        if flow is not None and (flow.c, flow.b) == (c, b):
            return self._same(flow, message.kind, segment, now)
        if message.kind is Kind.FORGET:
            context.ledger.took(Taken.FORGET)
            return None
        self._open(entry, segment, message, c, b, flow, now)
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
            return context.ledger.took(Taken.CLIENT_RESET)
        if not segment.payload and not segment.flags & FIN:
            opening.note(segment)
            return context.ledger.took(Taken.EARLY_ACK)
        if not self._keep(opening, segment):
            return context.ledger.drop(Refusal.HELD_FULL, segment.data)
        return context.ledger.took(Taken.HELD)

    def from_server(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """The server's packet while it is being asked, or a SYN-ACK that it repeats later."""
        opening = flow.opening
        if opening is None:
            return self._context.ledger.drop(Refusal.LATE_SYN_ACK, segment.data)
        if flow.state is not State.SYN_SENT:
            self._send_held(flow, opening)
            return self._context.ledger.took(Taken.SYN_ACK)
        right_ack = segment.ack == (opening.isn + 1) & MASK
        if opening.syn_ack is not None:
            again = segment.flags & (SYN | ACK) == SYN | ACK and right_ack
            if again and opening.asked_twice and segment.seq == opening.syn_ack[0]:
                return self._unsampled(flow, opening, now)
            return self._context.ledger.drop(Refusal.LATE_SYN_ACK, segment.data)  # held on purpose
        if segment.flags & RST:
            if segment.flags & ACK and right_ack:
                self._refuse(flow, now)
                return self._context.ledger.drop(Refusal.SERVER_RESET, segment.data)
            return self._context.ledger.drop(Refusal.BAD_SYN_ACK, segment.data)
        if segment.flags & (SYN | ACK) == SYN | ACK and right_ack:
            return self._connected(flow, opening, segment, now)
        if segment.flags & (SYN | ACK) == ACK:
            return self._time_wait(flow, opening, segment, now)
        return self._context.ledger.drop(Refusal.BAD_SYN_ACK, segment.data)

    def acknowledged(self, flow: Flow, ack: int) -> None:
        """The server has acknowledged up to ``ack`` (its own count): is the opening over?"""
        opening = flow.opening
        if opening is None or not before((opening.isn + 1) & MASK, ack):
            return
        if opening.owed is None or not before(ack, (opening.owed + flow.seq_up) & MASK):
            self._context.table.settle(flow)

    def owe(self, flow: Flow, segment: Segment) -> None:
        """Bytes that the balancer owns, for a flow that is spliced: keep them and say so."""
        opening = flow.opening
        if opening is None:
            self._context.fast.recall(flow)
            answers.accepted(self._context, flow, (flow.server_ack - flow.seq_up) & MASK)
            return
        if self._keep(opening, segment):
            opening.owe(segment)
            self._accept(flow, opening)

    def _keep(self, opening: Opening, segment: Segment) -> bool:
        """Hold a segment, if there is room."""
        table = self._context.table
        kept = opening.hold(segment) if table.may_hold() else None
        table.held_bytes += kept or 0
        return kept is not None

    def _same(self, flow: Flow, kind: Kind, segment: Segment, now: float) -> Flow | None:
        if kind is Kind.FORGET:
            self._context.reset_server(flow)
            self._context.table.remove(flow, Event.REPLACED, now)
            self._context.ledger.took(Taken.FORGET)
            return None
        self._context.ledger.counts[Openings.AGAIN] += 1
        flow.mark(FOLLOWED, False)  # the kernel took it for a new incarnation's
        if kind is Kind.HANDOFF_CONFIRM:
            if flow.state is State.SYN_SENT and flow.opening is not None:
                flow.opening.owe(segment)
            else:
                self.owe(flow, segment)
        return flow

    def _open(
        self,
        entry: Entry,
        segment: Segment,
        message: handoff.Handoff,
        c: int,
        b: int,
        old: Flow | None,
        now: float,
    ) -> None:
        table, ledger = self._context.table, self._context.ledger
        if table.was_closed(entry.dscp, segment.key, c, b, now):
            if table.was_refused(entry.dscp, segment.key, c, b, now):
                answers.refused(self._context, Flow(entry, segment.key, c, b, now), segment)
            ledger.drop(Refusal.REPLAYED, segment.data)
            return
        if old is not None:
            self._context.reset_server(old)
            table.remove(old, Event.REPLACED, now)
        flow = Flow(entry, segment.key, c, b, now)
        opening = Opening(message, segment)
        has_room = not table.full() or self._has_made_room(now)
        source = self._sources.source(entry, segment.src, segment.sport, table)
        if source is None or not has_room or not table.may_hold():
            full = Refusal.HELD_FULL if has_room else Refusal.TABLE_FULL
            reason = Refusal.NO_PORT if source is None else full
            answers.refused(self._context, flow, segment)
            ledger.drop(reason, segment.data)
            return
        flow.address(source)
        flow.opening = opening
        wall = self._context.wall
        opening.isn = c
        if entry.own_source:
            opening.isn = sources.own_isn(wall, int.from_bytes(source[4:], "big"))
            if opening.stamp is not None:
                flow.addressing.stamp_up = (sources.own_stamp(wall) - opening.stamp) & MASK
            flow.addressing.seq_up = (opening.isn - c) & MASK
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
        self._send_syn(flow, opening, now)

    def _has_made_room(self, now: float) -> bool:
        """End the longest idle flow in favour of a new one."""
        idle = self._context.table.longest_idle(now)
        if idle is None:
            return False
        self._context.ledger.counts[Flows.EVICTED] += 1
        end_idle(self._context, idle, now)
        return True

    def _send_syn(self, flow: Flow, opening: Opening, now: float) -> None:
        message = opening.handoff
        mss, stamps = max(message.mss, tcp_options.DEFAULT_MSS), None
        opening.stamped = opening.stamp is not None and now >= flow.entry.no_timestamps_until
        if opening.stamp is not None and opening.stamped:
            stamps = ((opening.stamp + flow.stamp_up) & MASK, 0)
        elif opening.stamp is not None:
            mss -= stamper.ADDED  # room for the timestamps that the bridge will add itself
        scale = NO_SCALE if message.promised_scale == NO_SCALE else message.client_scale
        self._context.to_server(
            flow,
            SYN,
            seq=opening.isn,
            window=shifted(opening.window, 0 if scale == NO_SCALE else scale),
            options=tcp_options.encode_offer(mss, scale, message.sack, stamps),
        )
        flow.apply(Event.SYN_OUT)
        opening.due = now + SYN_WAITS[opening.tries]
        self._context.schedule.add(opening.due, self._syn_timer, flow)

    def _syn_timer(self, flow: Flow, now: float) -> None:
        opening = flow.opening
        if flow.state is not State.SYN_SENT or opening is None or opening.syn_ack is not None:
            return
        if now < opening.due:
            return  # of an earlier SYN
        opening.tries += 1
        if opening.tries == len(SYN_WAITS):
            first = self._refuse(flow, now)
            self._context.ledger.gave_up(Openings.SERVER_SILENT, first.data)
            return
        if opening.tries == OTHER_PORT_AT and not flow.entry.own_source:
            self._move(flow)
        self._send_syn(flow, opening, now)

    def _move(self, flow: Flow) -> None:
        """Ask from another port: the client may have a connection of its own with the server from
        the one that was tried, and answers about that go straight to the client."""
        table, client = self._context.table, flow.inbound[:4]
        port = int.from_bytes(flow.inbound[8:10], "big")
        source = self._sources.source(flow.entry, client, port, table)
        if source is not None:
            table.readdress(flow, source)

    def _time_wait(
        self, flow: Flow, opening: Opening, segment: Segment, now: float
    ) -> bytes | None:
        """The server still holds an earlier connection of this source (RFC 9293 section 3.10.7.3):
        a RST of the number it expects, without timestamps, which it would hold against us, and
        then the SYN again."""
        if opening.tries < TIME_WAIT_RESETS:
            self._context.ledger.counts[Openings.TIME_WAIT_RESETS] += 1
            self._context.to_server(flow, RST, seq=segment.ack)
            opening.tries += 1
            self._send_syn(flow, opening, now)
        return self._context.ledger.took(Taken.TIME_WAIT)

    def _connected(
        self, flow: Flow, opening: Opening, segment: Segment, now: float
    ) -> bytes | None:
        offer, message = tcp_options.offer(segment.options), opening.handoff
        if opening.stamp is not None and offer.timestamps is None:
            if opening.stamped:
                # Its segments would leave no room for the option that the client was promised:
                # ask again, for smaller ones, and remember.
                flow.entry.no_timestamps_until = now + NO_TIMESTAMPS_SECONDS
                self._context.to_server(flow, RST, seq=(opening.isn + 1) & MASK)
                self._send_syn(flow, opening, now)
                return self._context.ledger.took(Taken.SYN_ACK)
            flow.stamper = stamper.Stamper(opening.echo, opening.stamp, now)
        theirs = 0 if offer.timestamps is None else offer.timestamps[0]
        opening.syn_ack = segment.seq, theirs
        flow.seq_down = (flow.b - segment.seq) & MASK
        flow.stamp_down = (opening.echo - theirs) & MASK if offer.timestamps is not None else 0
        flow.server_ack = (opening.isn + 1) & MASK
        if message.promised_scale != NO_SCALE:
            server_scale = 0 if offer.scale == NO_SCALE else offer.scale
            flow.down_window = server_scale - message.promised_scale
            flow.up_window = message.client_scale if offer.scale == NO_SCALE else 0
        hold = flow.entry.hold_seconds(message.rtt)
        if hold:
            self._context.schedule.add(now + hold, self._begin, flow)
            if flow.entry.asks_twice:
                opening.asked_twice = True
                self._send_syn(flow, opening, now)
        else:
            self._begin(flow, now)
        return self._context.ledger.took(Taken.SYN_ACK)

    def _unsampled(self, flow: Flow, opening: Opening, now: float) -> bytes | None:
        """The SYN-ACK came a second time, as asked: go on without holding.

        The server times its handshake against this host, not the client, and would begin with a
        round trip that is far too short. But it takes no sample of a handshake that was
        retransmitted (Karn's algorithm, RFC 6298 section 3), nor of an echo of 0, which says
        that there is none to give: its first sample is then that of its first data.
        """
        assert opening.syn_ack is not None, "it came a first time"
        opening.syn_ack = opening.syn_ack[0], 0
        self._context.ledger.counts[Openings.UNSAMPLED] += 1
        self._begin(flow, now)
        return self._context.ledger.took(Taken.SYN_ACK)

    def _begin(self, flow: Flow, now: float) -> None:
        """Complete the server's handshake with the held bytes."""
        opening = flow.opening
        if flow.state is not State.SYN_SENT or opening is None or opening.syn_ack is None:
            return
        flow.seen = now
        flow.apply(Event.CONNECTED)
        self._send_held(flow, opening)
        for segment in opening.held.values():
            if segment.flags & FIN:
                flow.client_fin = segment.end
        opening.tries = 0
        if opening.owed is not None:
            self._accept(flow, opening)
            self._context.schedule.add(now + OWED_AFTER, self._owed_timer, flow)
        elif self._needs_nobody(flow, opening) and self._context.fast.begin(flow):
            self._context.table.settle(flow)

    def _needs_nobody(self, flow: Flow, opening: Opening) -> bool:
        """Whether the kernel may have a flow before the server gets its first byte, and so all that
        it answers: nothing is lost on the way to a server on this host, what that itself drops is
        the client's to repeat, and a request of one segment is followed by none that may wait here.
        """
        return flow.entry.local and flow.stamper is None and opening.is_one_request()

    def _send_held(self, flow: Flow, opening: Opening) -> None:
        """What is held, in order, from the first byte that the server has not acknowledged."""
        assert opening.syn_ack is not None, "nothing is sent before the server's SYN-ACK"
        options = b""
        if opening.stamp is not None and flow.stamper is None:
            # The echo is exactly the SYN-ACK's, or 0: a Linux server in SYN-RECV drops any other.
            value = (opening.stamp + flow.stamp_up) & MASK
            options = tcp_options.encode_timestamps(value, opening.syn_ack[1])
        for segment in opening.in_order((flow.c + 1) & MASK):
            end = (segment.end + flow.seq_up) & MASK
            if not before(flow.server_ack, end):
                continue
            self._context.to_server(
                flow,
                ACK | segment.flags & (PSH | FIN),
                seq=segment.seq + flow.seq_up,
                ack=segment.ack - flow.seq_down,
                window=shifted(opening.window, flow.up_window),
                options=options,
                payload=segment.payload,
            )

    def _owed_timer(self, flow: Flow, now: float) -> None:
        opening = flow.opening
        if opening is None or flow.state is State.GONE:
            return
        opening.tries += 1
        if opening.tries > OWED_TRIES:
            self._context.ledger.counts[Openings.OWED_LOST] += 1
            self._context.reset_client(flow)
            self._context.reset_server(flow)
            self._context.table.remove(flow, Event.EXPIRED, now)
            return
        self._send_held(flow, opening)
        again = now + OWED_AFTER * 2**opening.tries
        self._context.schedule.add(again, self._owed_timer, flow)

    def _accept(self, flow: Flow, opening: Opening) -> None:
        answers.accepted(self._context, flow, opening.next_lacking((flow.c + 1) & MASK))

    def give_back(self, flow: Flow) -> Segment:
        """Return a flow that is being opened to the balancer; gives its first held segment."""
        assert flow.opening is not None, "a flow in SYN_SENT has an opening"
        first = flow.opening.in_order((flow.c + 1) & MASK)[0]
        answers.refused(self._context, flow, first)
        return first

    def _refuse(self, flow: Flow, now: float) -> Segment:
        first = self.give_back(flow)
        self._context.table.remove(flow, Event.UNREACHABLE, now)
        return first
