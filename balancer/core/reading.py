"""Reading the request of a waiting connection, up to the point where a backend can be chosen."""

from __future__ import annotations

from balancer.core import reply
from balancer.core.context import Context, Served
from balancer.core.flow import Flow, State
from balancer.core.handover import Handover
from balancer.core.request import keys
from balancer.core.request.head import Head, offset_of
from balancer.core.request.http2.frames import PREFACE
from balancer.core.request.line import Request
from balancer.core.request.selector import Selected
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason
from balancer.core.story import Asked
from common.core import tcp_options
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, FIN, MASK, RST, Segment

# A client that waits for an acknowledgment before it sends more (Nagle's algorithm, a full initial
# window of tiny segments) would wait for ever; one that does not sends the rest sooner than this.
ACKNOWLEDGE_AFTER = 0.04
# Before the initial window (10 segments, RFC 6928) is full.
ACKNOWLEDGE_SEGMENTS = 8
ACKNOWLEDGE_BYTES = 10_000
MOST_TARGET = 1024  # bytes of a request's target in the access log


class Unread(Outcome):
    """What became of a segment of a waiting connection, other than to be kept or handed over."""

    OUT_OF_WINDOW = "head_out_of_window"
    BAD_ACK = "bad_ack"
    HEAD_IN_PIECES = "head_in_too_many_pieces"
    HEAD_CUT_SHORT = "head_cut_short"  # FIN before the request was whole
    CLIENT_RESET = "client_reset"
    CLIENT_CLOSED = "client_closed"  # FIN before anything else
    CLOSING = "client_closing"  # and what the client sends after that
    BARE_ACK = "bare_ack"  # without data: the handshake's last, or a keep-alive, which is answered


class Heads(Occurrence):
    """Of connections whose request is awaited."""

    OWNED = "heads_owned"  # acknowledged in parts
    CROWDED_OUT = "head_crowded_out"  # given up for newer ones, the buffers being full
    TIMEOUT = "request_timeout"
    SOURCE_HASHED = "source_hashed"  # unreadable, and handed over by the client's address


class Reading:
    """Segments of waiting and closed flows; what is chosen goes to ``handover``."""

    def __init__(self, context: Context, handover: Handover) -> None:
        self._context = context
        self._handover = handover

    def segment(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """The verdict on a segment, never a SYN, of a flow that is WAITING or CLOSED."""
        drop = self._context.ledger.drop
        offset = offset_of(segment.seq, flow.first)
        if segment.flags & RST:
            return self._reset(flow, segment, offset, now)
        if not segment.flags & ACK or not self._acknowledges(flow, segment):
            return drop(Unread.BAD_ACK, segment.data)
        if flow.state is State.CLOSED:
            flow.seen = now
            return self._after_close(flow, segment, now)
        if not segment.payload and not segment.flags & FIN:
            self._answer_probe(flow, segment, offset)
            return self._context.ledger.took(Unread.BARE_ACK)
        if not 0 <= offset <= flow.service.max_head:
            self._answer_probe(flow, segment, offset)
            return drop(Unread.OUT_OF_WINDOW, segment.data)
        if segment.flags & FIN and not segment.payload and offset == 0:
            return self._close(flow, segment)
        return self._take(flow, segment, offset, now)

    def expire(self, flow: Flow, now: float) -> None:
        """The request did not come in time."""
        if flow.state is State.WAITING:
            self._context.ledger.counts[Heads.TIMEOUT] += 1
            self._context.reset_client(flow)
        waited = flow.state is State.WAITING
        self._context.table.remove(flow, now, Heads.TIMEOUT if waited else Unread.CLIENT_CLOSED)

    def _take(self, flow: Flow, segment: Segment, offset: int, now: float) -> bytes | None:
        context = self._context
        head = flow.head
        if head is None:
            head = context.table.begin_head(flow)
        had = len(head.data)
        room = offset + len(segment.payload) <= flow.service.max_head + flow.service.mss
        kept = head.add(offset, segment) if room else None
        if kept is None:
            return context.ledger.drop(Unread.HEAD_IN_PIECES, segment.data)
        context.table.buffered_bytes += kept
        found = self._inspect(flow, head, had)
        if isinstance(found, Selected):
            flow.is_http = found.http == 1
            if self._context.access.wanted:
                flow.asked = _asked(found, flow.handed_at)
            pool = flow.service.pools[found.pool]
            return self._handover.start(flow, pool, found.key, segment, now)
        if isinstance(found, NeedMore) and len(head.data) < flow.service.max_head:
            if not head.complete_fin():
                self._make_room(flow, now)
                self._await_more(flow, head, now)
                return context.ledger.took(Served.HEAD_KEPT)
            reason: Outcome = Unread.HEAD_CUT_SHORT
        else:
            reason = found.reason if isinstance(found, Bad) else Reason.HEAD_TOO_LONG
            if isinstance(found, Bad) and found.request is not None:
                flow.asked = _said(found.request, _version(flow, head), flow.handed_at)
        return self._bad_request(flow, segment, reason, now)

    def _inspect(self, flow: Flow, head: Head, had: int) -> Bad | NeedMore | Selected:
        """What the head says, of which ``had`` bytes were looked at before: most of those that
        are dribbled cannot change the answer, and so cost little."""
        service, selector = flow.service, flow.service.selector
        size = len(head.data)
        waits = size < head.awaited or not selector.may_decide(head.data, had)
        if had and size < service.max_head and waits:
            return NEED_MORE
        found = selector.inspect(bytes(head.data), service.max_head, flow.key[:4])
        if isinstance(found, NeedMore):
            head.awaited = found.until
        return found

    def _make_room(self, flow: Flow, now: float) -> None:
        """Give up the oldest heads for a new one: who sends only beginnings loses them first."""
        table = self._context.table
        while (oldest := table.crowded_out(flow)) is not None:
            self._context.ledger.counts[Heads.CROWDED_OUT] += 1
            self._context.reset_client(oldest)
            table.remove(oldest, now, Heads.CROWDED_OUT)

    def _bad_request(
        self, flow: Flow, segment: Segment, reason: Outcome, now: float
    ) -> bytes | None:
        ledger = self._context.ledger
        service = flow.service
        if service.source_hash_bad and service.default_pool is not None:
            ledger.counts[Heads.SOURCE_HASHED] += 1
            if ledger.verbose:
                ledger.event(f"{flow}: {reason}; chosen by the client's address")
            flow.is_http = False
            pool = service.pools[service.default_pool]
            return self._handover.start(flow, pool, segment.src, segment, now)
        self._context.reset_client(flow)
        self._context.table.remove(flow, now, reason)
        return ledger.drop(reason, segment.data)

    def _await_more(self, flow: Flow, head: Head, now: float) -> None:
        if head.arrived >= ACKNOWLEDGE_SEGMENTS or len(head.data) - head.owned >= ACKNOWLEDGE_BYTES:
            self._own(flow, head)
            return
        waiting = head.due > now
        head.due = now + ACKNOWLEDGE_AFTER
        if not waiting:
            self._context.schedule.add(head.due, self._silence, flow)

    def _silence(self, flow: Flow, now: float) -> None:
        """Nothing came for a while: acknowledge what is there, unless that is done with."""
        head = flow.head
        if flow.state is not State.WAITING or head is None or not head.arrived:
            return
        if head.due > now:
            self._context.schedule.add(head.due, self._silence, flow)
        else:
            self._own(flow, head)

    def _own(self, flow: Flow, head: Head) -> None:
        self._context.table.buffered_bytes -= head.own()
        self._context.ledger.counts[Heads.OWNED] += 1
        self._acknowledge(flow, head)

    def _acknowledge(self, flow: Flow, head: Head | None) -> None:
        """ACK what we own. Its TSval repeats our SYN-ACK's, as the client echoed it: the bridge
        goes on from that one, and the client must not have seen a later."""
        owned = 0 if head is None else head.owned
        stamp = None if head is None else head.stamp
        left = flow.service.window - owned
        shift = 0 if flow.promised_scale == tcp_options.NO_SCALE else flow.promised_scale
        options = b"" if stamp is None else tcp_options.encode_timestamps(stamp[1], stamp[0])
        self._context.to_client(
            flow,
            ACK,
            seq=flow.b + 1,
            ack=flow.first + owned,
            # rounded up: the right edge must not move left (RFC 9293 section 3.8.6)
            window=max(left + (1 << shift) - 1 >> shift, 0),
            options=options,
        )

    def _answer_probe(self, flow: Flow, segment: Segment, offset: int) -> None:
        """A keep-alive (RFC 9293 section 3.8.4) or a segment we have: say what we have."""
        head = flow.head or Head()
        if offset >= head.owned and not segment.payload:
            return
        head.note(segment)
        self._acknowledge(flow, head)

    def _acknowledges(self, flow: Flow, segment: Segment) -> bool:
        return 1 <= (segment.ack - flow.b) & MASK <= reply.ours(flow)

    def _close(self, flow: Flow, fin: Segment) -> bytes | None:
        """The client ends before it has asked anything: so do we."""
        flow.state = State.CLOSED
        reply.again(self._context, flow, fin)
        return self._context.ledger.took(Unread.CLIENT_CLOSED)

    def _after_close(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        if segment.span:
            reply.again(self._context, flow, segment)
        elif (segment.ack - flow.b) & MASK == reply.ours(flow) and not flow.said:
            self._context.table.remove(flow, now, Unread.CLIENT_CLOSED)
        return self._context.ledger.took(Unread.CLOSING)

    def _reset(self, flow: Flow, segment: Segment, offset: int, now: float) -> bytes | None:
        """RFC 5961 section 3.2: only the exact sequence number ends a connection."""
        head = flow.head
        owned = 0 if head is None else head.owned
        if offset != owned and flow.state is State.WAITING:
            return self._context.ledger.drop(Unread.OUT_OF_WINDOW, segment.data)
        self._context.table.remove(flow, now, Unread.CLIENT_RESET)
        return self._context.ledger.took(Unread.CLIENT_RESET)


def _asked(found: Selected, began: float) -> Asked:
    """For the access log."""
    key = keys.shown(found.key, found.parts)
    said = _said(found.request, found.http or None, began)
    return said._replace(route=found.route, pool=found.pool, key=key)


def _said(request: Request, http: int | None, began: float) -> Asked:
    """The same, as far as it is the client's."""
    target = request.target[:MOST_TARGET].decode("ascii", "backslashreplace")
    return Asked(began, http, request.method.decode("ascii"), target, "", "", "")


def _version(flow: Flow, head: Head) -> int | None:
    """Of HTTP, where that is what a readable request was in."""
    if flow.service.inspect != "http":
        return None
    return 2 if head.data.startswith(PREFACE) else 1
