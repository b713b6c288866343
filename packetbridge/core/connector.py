"""Connecting: the bridge's own handshake with the server, in the client's name, up to what was held
for it being acknowledged."""

from __future__ import annotations

from functools import partial

from common.core import tcp_options
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, FIN, MASK, PSH, RST, SYN, Segment, before
from common.core.tcp_options import NO_SCALE
from packetbridge.core import answers, stamper
from packetbridge.core.context import Context
from packetbridge.core.ends import give_back, kill
from packetbridge.core.flow import Flow
from packetbridge.core.opening import Opening
from packetbridge.core.sources import Sources
from packetbridge.core.splice import shifted
from packetbridge.core.states import Event, State
from packetbridge.core.story import End

# SYNs at these parts of the time that the server is given, each wait twice the one before. It is
# near: what it has not answered in a seventh of a second was lost (RFC 6298 section 2.1 begins with
# a whole second, as it does not know how far a peer is).
SYN_AT = (0.0, 1 / 7, 3 / 7)
OTHER_PORT_AT = 2  # the SYN, counted from 0, that comes from another port
OWED_AFTER = 0.2  # seconds to the first retransmission of owed bytes, doubled at each
OWED_TRIES = 6
NO_TIMESTAMPS_SECONDS = 600.0  # that a server without timestamps is believed to stay so
TIME_WAIT_RESETS = 2  # of one opening


class Answered(Outcome):
    """What became of a server's packet while it was being asked."""

    SYN_ACK = "backend_syn_ack"
    TIME_WAIT = "backend_time_wait"  # the server's answer from an earlier connection
    RESET = "backend_refused"
    BAD_SYN_ACK = "bad_backend_syn_ack"
    LATE_SYN_ACK = "late_backend_syn_ack"


class Asked(Occurrence):
    """Of servers that are being asked."""

    TIME_WAIT_RESETS = "time_wait_resets"
    UNSAMPLED = "handshakes_unsampled"
    SERVER_SILENT = "backend_silent"
    OWED_LOST = "owed_bytes_unacknowledged"


class Connector:
    """One for all flows; each has an Opening meanwhile."""

    def __init__(self, context: Context, sources: Sources) -> None:
        self._context = context
        self._sources = sources

    def ask(self, flow: Flow, opening: Opening, now: float) -> None:
        """Send a SYN, and another one where no answer comes in time."""
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
        if flow.state is State.HANDOFF:
            opening.until = now + flow.entry.connect
        flow.apply(Event.SYN_OUT)
        opening.due = opening.until
        if opening.tries + 1 < len(SYN_AT):
            wait = SYN_AT[opening.tries + 1] - SYN_AT[opening.tries]
            opening.due = min(now + wait * flow.entry.connect, opening.until)
        self._context.schedule.add(opening.due, self._syn_timer, flow)

    def from_server(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """The server's packet while it is being asked, or a SYN-ACK that it repeats later."""
        opening = flow.opening
        if opening is None:
            return self._context.ledger.drop(Answered.LATE_SYN_ACK, segment.data)
        if flow.state is not State.SYN_SENT:
            self._send_held(flow, opening)
            return self._context.ledger.took(Answered.SYN_ACK)
        right_ack = segment.ack == (opening.isn + 1) & MASK
        if opening.syn_ack is not None:
            again = segment.flags & (SYN | ACK) == SYN | ACK and right_ack
            if again and opening.asked_twice and segment.seq == opening.syn_ack[0]:
                return self._unsampled(flow, opening, now)
            return self._context.ledger.drop(Answered.LATE_SYN_ACK, segment.data)  # held on purpose
        if segment.flags & RST:
            if segment.flags & ACK and right_ack:
                flow.entry.figures.refused += 1
                give_back(self._context, flow, Answered.RESET, now)
                return self._context.ledger.drop(Answered.RESET, segment.data)
            return self._context.ledger.drop(Answered.BAD_SYN_ACK, segment.data)
        if segment.flags & (SYN | ACK) == SYN | ACK and right_ack:
            return self._connected(flow, opening, segment, now)
        if segment.flags & (SYN | ACK) == ACK:
            return self._time_wait(flow, opening, segment, now)
        return self._context.ledger.drop(Answered.BAD_SYN_ACK, segment.data)

    def acknowledged(self, flow: Flow, ack: int) -> None:
        """The server has acknowledged up to ``ack`` (its own count): is the opening over?"""
        opening = flow.opening
        if opening is None or not before((opening.isn + 1) & MASK, ack):
            return
        if opening.owed is None or not before(ack, (opening.owed + flow.seq_up) & MASK):
            self._context.table.settle(flow)

    def _syn_timer(self, flow: Flow, now: float) -> None:
        opening = flow.opening
        if flow.state is not State.SYN_SENT or opening is None or opening.syn_ack is not None:
            return
        if now < opening.due:
            return  # of an earlier SYN
        if now >= opening.until:
            flow.entry.figures.silent += 1
            first = give_back(self._context, flow, Asked.SERVER_SILENT, now)
            self._context.ledger.gave_up(Asked.SERVER_SILENT, first.data)
            return
        opening.tries += 1
        if opening.tries == OTHER_PORT_AT and not flow.entry.own_source:
            self._move(flow)
        self.ask(flow, opening, now)

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
            self._context.ledger.counts[Asked.TIME_WAIT_RESETS] += 1
            self._context.to_server(flow, RST, seq=segment.ack)
            opening.tries += 1
            self.ask(flow, opening, now)
        return self._context.ledger.took(Answered.TIME_WAIT)

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
                opening.tries, opening.until = 0, now + flow.entry.connect
                self.ask(flow, opening, now)
                return self._context.ledger.took(Answered.SYN_ACK)
            flow.stamper = stamper.Stamper(opening.echo, opening.stamp, now)
        figures = flow.entry.figures
        figures.opened += 1
        figures.connect.observe(now - flow.began)
        if flow.story is not None:
            flow.story.connected = now
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
                self.ask(flow, opening, now)
        else:
            self._begin(flow, now)
        return self._context.ledger.took(Answered.SYN_ACK)

    def _unsampled(self, flow: Flow, opening: Opening, now: float) -> bytes | None:
        """The SYN-ACK came a second time, as asked: go on without holding.

        The server times its handshake against this host, not the client, and would begin with a
        round trip that is far too short. But it takes no sample of a handshake that was
        retransmitted (Karn's algorithm, RFC 6298 section 3), nor of an echo of 0, which says
        that there is none to give: its first sample is then that of its first data.
        """
        assert opening.syn_ack is not None, "it came a first time"
        opening.syn_ack = opening.syn_ack[0], 0
        self._context.ledger.counts[Asked.UNSAMPLED] += 1
        self._begin(flow, now)
        return self._context.ledger.took(Answered.SYN_ACK)

    def _begin(self, flow: Flow, now: float) -> None:
        """Complete the server's handshake with the held bytes."""
        opening = flow.opening
        if flow.state is not State.SYN_SENT or opening is None or opening.syn_ack is None:
            return
        flow.seen = now
        flow.apply(Event.CONNECTED)
        self._send_held(flow, opening)
        size = 0
        for segment in opening.held.values():
            size += len(segment.data)
            if segment.flags & FIN:
                flow.client_fin = segment.end
        flow.entry.figures.up_bytes += size
        if flow.story is not None:
            flow.story.up_bytes += size
        opening.tries = 0
        if opening.owed is not None:
            self.accept(flow, opening)
            self._context.schedule.add(now + OWED_AFTER, self._owed_timer, flow)
        elif self._needs_nobody(flow, opening):
            self._context.beforehand.append(partial(self._leave_to_kernel, flow))

    def _leave_to_kernel(self, flow: Flow) -> None:
        asked = flow.state is State.SPLICED and flow.opening is not None
        if asked and self._context.fast.begin(flow):
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
            self._context.ledger.counts[Asked.OWED_LOST] += 1
            flow.entry.figures.silent += 1
            kill(self._context, flow, End.UNACKNOWLEDGED, now)
            return
        self._send_held(flow, opening)
        again = now + OWED_AFTER * 2**opening.tries
        self._context.schedule.add(again, self._owed_timer, flow)

    def accept(self, flow: Flow, opening: Opening) -> None:
        """Tell the balancer how far the bytes that it owned have come here."""
        answers.accepted(self._context, flow, opening.next_lacking((flow.c + 1) & MASK))
