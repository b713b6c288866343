"""Handing a connection over: the first handoff, its repetition, the owned way with CONFIRM, and
another backend where one cannot serve it.

What a client repeats may mean that the bridge is away, or that an acknowledgment was lost. So a
repeated handoff asks for an answer: from a bridge that gives none in the pool's ``silence`` the
connection is taken, and one that answers has it for good, unless it gives it back itself. What is
taken from a bridge is forgotten there first, if it can hear: two backends never both answer one
request unless packets are held up for longer than that between balancer and bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from balancer.core.catalogue import PoolLimit
from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.core.context import Context, Served
from balancer.core.flow import Flow, State, incarnation
from balancer.core.flow_table import Admitted
from balancer.core.placing import place, place_elsewhere
from balancer.core.reply import Replied, reply
from balancer.core.request.head import Head, offset_of
from balancer.core.service import Target
from common.core import handoff, tcp_options
from common.core.handoff import Kind
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, FIN, MASK, PSH, Segment, build_along
from common.core.unknown_flows import UnknownFlows

CONFIRM_AFTER = 0.2  # seconds to the first repetition, doubled at each
CONFIRM_TRIES = 5
BETWEEN_ATTEMPTS = 1.0  # seconds, at the only backend that there is
SHORTEST = 0.25  # seconds: what a question and its answer may take at least
RETRY_AFTER = 5  # seconds: when who could not be served may ask again
SILENT_FROM = 3  # handoffs repeated in a row, from which a bridge is taken for silent
# Seconds; a bridge asks its server for ten, and then gives the connection back.
GIVE_UP_AFTER = 12.0
LAST_CHANCE = 1.0  # for what a repeated handoff brings about to come back as an acknowledgment


class Failure(Outcome):
    """Why a request was not handed over, or an answer not heeded."""

    TABLE_FULL = "flow_table_full"
    BAD_MAC = "bad_answer_mac"
    OLD_EPOCH = "old_answer_epoch"
    ON_ITS_WAY = "handoff_on_its_way"  # what the client repeats is being repeated by us already
    NOT_AN_ANSWER = "not_an_answer"  # our option, but not from a bridge to a balancer
    UNKNOWN_FLOW = "answer_for_unknown_flow"
    NOT_SERVED = "not_served"  # there is no backend that could take it
    OVER_LIMIT = "over_rate_limit"


class Answer(Outcome):
    """What a bridge says."""

    ACCEPTED = "answer_accepted"
    ENDED = "answer_ended"
    REFUSED = "backend_refused"


class Handoffs(Occurrence):
    """Of handoffs."""

    BEGUN = "handoffs"
    REPEATED = "handoffs_repeated"
    UNCONFIRMED = "handoff_unconfirmed"  # given up
    UNANSWERED = "handoff_unanswered"  # likewise
    SILENT = "bridge_silent"  # it did not answer in time
    TOO_LATE = "handoff_too_late"  # to be repeated; it goes on as a plain segment


class Handover:
    """Flows on their way to a bridge. ``find`` gives the flow of a key, if there is one."""

    def __init__(self, context: Context, find: Callable[[bytes, float], Flow | None]) -> None:
        self._context = context
        self._find = find
        self._repeating = UnknownFlows(sightings=3)  # not one late duplicate of a request

    def start(self, flow: Flow, pool: Pool, key: bytes, last: Segment, now: float) -> bytes | None:
        """Choose by ``key`` and hand over what was read; the verdict on ``last``, its last part."""
        context, head = self._context, flow.head
        assert head is not None, "a request was read from a head"
        flow.seen = now
        pool = context.catalogue.current(pool)  # the flow's service may be a former one
        limit = context.catalogue.limits.get(pool.name)
        wait = 0.0 if limit is None else limit.wait(key, flow.key[:4], now)
        if limit is not None and wait:
            return self._over_limit(flow, limit, last, wait, now)
        flow.hash64 = key_hash(key)
        target = place(context, flow, pool, now)
        if target is None:
            self._answer(flow, last, Replied.UNAVAILABLE, RETRY_AFTER, now)
            return context.ledger.drop(Failure.NOT_SERVED, last.data)
        if not context.table.hand(flow) and not self._has_made_room(flow, now):
            context.reset_client(flow)
            context.table.remove(flow, now, Failure.TABLE_FULL)
            return context.ledger.drop(Failure.TABLE_FULL, last.data)
        context.times.handoff.observe(now - flow.began)
        flow.handed_at = now
        context.ledger.counts[Handoffs.BEGUN] += 1
        if context.ledger.verbose:
            line = bytes(head.data).lstrip().partition(b"\n")[0].rstrip()
            asked, chosen_by = (_readable(text) for text in (line, key))
            context.ledger.event(f"{flow}: {asked}; key {chosen_by} -> {target.name}")
        if head.owned:
            self._send_owned(flow, head, target, now)
            for packet in head.behind_gap():
                context.send(target.steering.segment(packet))
            context.schedule.add(now + CONFIRM_AFTER, self._confirm, flow)
            return context.ledger.took(Served.HEAD_KEPT)
        packets = head.forwardable()
        context.table.drop_head(flow)
        first = packets[0]
        flow.handoff_bytes = len(first.payload)
        # Who pushes a request of one segment has sent nothing behind it that may wait here and be
        # overtaken; and the first answer to the response may be quick.
        context.fast.steer(flow, at_once=len(packets) == 1 and bool(last.flags & PSH))
        handed = self._handoff(flow, first, target, now)
        if len(packets) == 1:
            return context.ledger.passed(Served.STEERED, handed)
        context.send(handed)
        for packet in packets[1:]:
            context.send(target.steering.segment(packet))
        return context.ledger.took(Served.HEAD_KEPT)

    def is_repeating(self, flow: Flow, offset: int) -> bool:
        """Whether we repeat what starts at ``offset`` ourselves, until the bridge confirms it. From
        the client's own repetition a bridge that has no handoff yet could only conclude that the
        connection is lost, and end it."""
        return flow.head is not None and 0 <= offset < len(flow.head.data)

    def repeat(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """The client sends the first bytes again: so do we, to the bridge that was chosen. A
        repetition is worth no more than the first: it keeps its epoch, so that a bridge which has
        closed the flow, and in the end forgotten it, does not open it a second time.

        A client that did so again and again, and has heard nothing when a bridge would have given
        up its server, is told that there is nobody: the bridge does not believe us, or its packets
        get lost."""
        context, target = self._context, flow.target
        assert target is not None, "a handed flow has a target"
        segment.check_checksum()  # it may be what the next backend gets
        context.fast.recall(flow)
        flow.seen = flow.repeated = now
        if self._repeating.insists(flow.incarnation, now):
            when = max(flow.handed_at + GIVE_UP_AFTER, now + LAST_CHANCE)
            context.schedule.add(when, partial(self._give_up, now), flow)
        if handoff.epoch_at(context.wall) - self._epoch(flow, now) > handoff.EPOCH_SLACK:
            context.ledger.counts[Handoffs.TOO_LATE] += 1
            return context.ledger.passed(Served.STEERED, target.steering.segment(segment))
        self._repeated(target)
        if len(segment.payload) > flow.handoff_bytes:
            flow.handoff_bytes = len(segment.payload)
            context.fast.steer(flow)
        if flow.answered or len(segment.payload) > target.segment_bytes:
            # the latter as long as it comes: should it get lost by that, no bridge is to blame
            again = self._handoff(flow, segment, target, now)
        else:
            silence = target.pool.configured.silence
            if not flow.silent_at:
                until = max(flow.handed_at + silence, now + SHORTEST)
                self._expect_answer(flow, target, segment, until)
            again = self._handoff(flow, segment, target, now, Kind.HANDOFF_CONFIRM)
        return context.ledger.passed(Served.STEERED, again)

    def _expect_answer(self, flow: Flow, target: Target, segment: Segment, until: float) -> None:
        """The bridge has been asked whether it is there: once until it is due, however often the
        client repeats its request."""
        flow.silent_at = until
        self._context.schedule.add(until, partial(self._silent, target, segment), flow)

    def _silent(self, target: Target, segment: Segment, flow: Flow, now: float) -> None:
        """A bridge has had its time to answer."""
        if flow.state is not State.HANDED or flow.target is not target or now < flow.silent_at:
            return
        flow.silent_at = 0.0
        self._context.fast.recall(flow)
        if not flow.answered:
            self._pass_over(flow, segment, Handoffs.SILENT, now)

    def _pass_over(self, flow: Flow, segment: Segment | None, reason: Handoffs, now: float) -> None:
        """Take a flow from a bridge that does not answer, if there is another: else it may still
        come back, and be served by what its client repeats."""
        former = flow.target
        assert former is not None, "a handed flow has a target"
        self._context.ledger.counts[reason] += 1
        self._context.health.suspected(former.pool.name, former.name, reason, flow.key[:4], now)
        option = self._context.forgetting(flow)
        if self._goes_elsewhere(flow, segment, now):
            self._context.send(option)

    def _refused(self, flow: Flow, segment: Segment, now: float) -> None:
        """A bridge gives a flow back, in what the client's request begins with."""
        former = flow.target
        assert former is not None, "a handed flow has a target"
        client = flow.key[:4]
        self._context.health.suspected(former.pool.name, former.name, Answer.REFUSED, client, now)
        if self._goes_elsewhere(flow, segment, now):
            return
        flow.attempt += 1
        if flow.attempt > min(former.pool.configured.retries, handoff.ATTEMPTS - 1):
            self._answer(flow, segment, Replied.UNAVAILABLE, RETRY_AFTER, now)
        else:
            when = max(flow.handed_at + BETWEEN_ATTEMPTS, now)
            self._context.schedule.add(when, partial(self._attempt, flow.attempt, segment), flow)

    def _attempt(self, attempt: int, segment: Segment, flow: Flow, now: float) -> None:
        """Hand a flow to the same bridge again, as there is no other."""
        target = flow.target
        if flow.state is State.HANDED and flow.attempt == attempt and target is not None:
            self._hand_again(flow, segment, target, now)

    def _goes_elsewhere(self, flow: Flow, segment: Segment | None, now: float) -> bool:
        """Hand the same request, which begins with ``segment`` or is all our own, to the next
        backend; False where there is none."""
        context = self._context
        target = place_elsewhere(context, flow, now)
        if target is None:
            return False
        if context.ledger.verbose:
            context.ledger.event(f"{flow}: on to {target.name}")
        flow.attempt = 0
        self._hand_again(flow, segment, target, now)
        return True

    def _hand_again(self, flow: Flow, segment: Segment | None, target: Target, now: float) -> None:
        """Hand over anew what has been given back, or taken back."""
        flow.handed_at, flow.answered = now, False
        if flow.closing:  # a bridge has said that it is over, and then this one gives it back
            flow.closing = False
            if not flow.holds:
                flow.hold(now)
        if flow.head is not None:
            flow.head.confirmed = flow.head.tries = 0
            self._send_owned(flow, flow.head, target, now)
            return
        assert segment is not None, "what is not our own is the client's to repeat"
        flow.handoff_bytes = len(segment.payload)
        self._context.fast.steer(flow)
        self._expect_answer(flow, target, segment, now + target.pool.configured.silence)
        self._context.send(self._handoff(flow, segment, target, now, Kind.HANDOFF_CONFIRM))

    def _over_limit(
        self, flow: Flow, limit: PoolLimit, last: Segment, wait: float, now: float
    ) -> bytes | None:
        if limit.configured.over == "429":
            self._answer(flow, last, Replied.TOO_MANY, ceil(wait), now)
        else:
            self._context.reset_client(flow)
            self._context.table.remove(flow, now, Failure.OVER_LIMIT)
        return self._context.ledger.drop(Failure.OVER_LIMIT, last.data)

    def _answer(
        self, flow: Flow, segment: Segment | None, kind: Replied, retry_after: int, now: float
    ) -> None:
        """Answer in place of a backend, where the client speaks HTTP; reset it otherwise. It has
        had nothing from anybody."""
        context, head = self._context, flow.head
        if not flow.is_http:
            context.reset_client(flow)
            context.table.remove(flow, now, kind)
            return
        if segment is not None:
            flow.taken = len(segment.payload)
            stamps = tcp_options.timestamps(segment.options)
        if head is not None:
            flow.taken, stamps = len(head.data), head.stamp
        context.table.drop_head(flow)
        if not flow.closing:
            context.table.told(flow, kind, now)
        flow.closing = True  # it need not be kept long
        if flow.state is State.HANDED:
            context.table.take_back(flow, now)
        reply(context, flow, stamps, kind, retry_after)

    def _give_up(self, repeated: float, flow: Flow, now: float) -> None:
        """Reset a client that has sent nothing since it ``repeated`` its request: it would have
        acknowledged what it got."""
        context = self._context
        context.fast.recall(flow)
        if flow.state is not State.HANDED or flow.seen != repeated:
            return
        context.ledger.counts[Handoffs.UNANSWERED] += 1
        if flow.target is not None:
            name = flow.target.name
            context.ledger.warn(Handoffs.UNANSWERED, f"{flow}: {name} did not take it, reset")
        context.reset_client(flow)
        context.forget_at_bridge(flow)
        context.table.remove(flow, now, Handoffs.UNANSWERED)

    def answer(
        self, flow: Flow | None, segment: Segment, option: bytes, now: float
    ) -> bytes | None:
        """A bridge's answer to a handoff. Never forwarded; the verdict is always to drop."""
        context = self._context
        drop, data = context.ledger.drop, segment.data
        message = handoff.decode(option)
        if message.kind < Kind.ACCEPTED:
            return drop(Failure.NOT_AN_ANSWER, data)
        if message.kind is Kind.ENDED:
            c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
            binding = handoff.Binding(segment.key, c, b, segment.seq, segment.payload)
        elif flow is not None and flow.target is not None:
            whose = flow.target.steering.bridge, flow.attempt
            binding = handoff.Binding(
                segment.key, flow.c, flow.b, segment.seq, segment.payload, *whose
            )
        else:
            return drop(Failure.UNKNOWN_FLOW, data)
        if handoff.signer(context.keys.accepted, option, binding, context.wall) is None:
            return drop(Failure.BAD_MAC, data)
        if not handoff.timely(option, context.wall):
            return drop(Failure.OLD_EPOCH, data)
        if message.kind is Kind.ENDED:
            return self._ended(segment, now)
        assert flow is not None, "an answer of another kind is about a flow"
        target = flow.target
        assert target is not None, "a handed flow has a target"
        target.unanswered = 0
        if message.kind is Kind.REFUSED:
            segment.check_checksum()  # what comes back is handed on as it is
            if not segment.payload and flow.head is None:
                return drop(Failure.NOT_AN_ANSWER, data)
            self._refused(flow, segment, now)
            return drop(Answer.REFUSED, data)
        flow.answered = True
        self._accepted(flow, offset_of(segment.seq, flow.first))
        return context.ledger.took(Answer.ACCEPTED)

    def _ended(self, segment: Segment, now: float) -> bytes | None:
        """A bridge's word that connections are over, the segment's own and others: of those that
        are the ones we know, none is to be kept for long."""
        context, known = self._context, False
        isns = incarnation(b"", segment.seq - 1 & MASK, segment.ack - 1 & MASK)
        others = handoff.decode_ended(segment.payload, segment.key)
        for key, numbers in ((segment.key, isns), *others):
            flow = self._find(key, now)
            if flow is None or (flow.state, flow.incarnation) != (State.HANDED, key + numbers):
                continue
            known, flow.seen = True, now
            flow.answered = True  # a server may have had the request: nobody else gets it
            context.table.drop_head(flow)
            context.table.ended(flow, now)
            context.fast.forget(flow)  # so that the kernel shakes hands with the next of it
            if flow.target is not None:
                flow.target.unanswered = 0
        if not known:
            return context.ledger.drop(Failure.UNKNOWN_FLOW, segment.data)
        return context.ledger.took(Answer.ENDED)

    def _has_made_room(self, flow: Flow, now: float) -> bool:
        """End the longest idle of the handed flows in favour of ``flow``. Its client learns it when
        it sends again."""
        context = self._context
        idle = context.table.longest_idle(now)
        if idle is None:
            return False
        context.ledger.counts[Admitted.FLOW_EVICTED] += 1
        context.forget_at_bridge(idle)
        context.table.remove(idle, now, Admitted.FLOW_EVICTED)
        return context.table.hand(flow)

    def _epoch(self, flow: Flow, now: float) -> int:
        """The epoch in which the flow was handed over, by the clock as it is set now."""
        return handoff.epoch_at(self._context.wall - (now - flow.handed_at))

    def _handoff(
        self, flow: Flow, segment: Segment, target: Target, now: float, kind: Kind = Kind.HANDOFF
    ) -> bytes:
        epoch = self._epoch(flow, now)
        option = self._context.option(flow, kind, segment.seq, epoch)
        options = handoff.segment_options(segment, option)
        if kind is Kind.HANDOFF_CONFIRM and len(segment.payload) <= target.segment_bytes:
            return _anew(segment, options, flow, target)
        return target.steering.segment(segment, options)

    def _repeated(self, target: Target) -> None:
        """Count, and say so where a bridge seems not to be there: one lost packet is nothing."""
        self._context.ledger.counts[Handoffs.REPEATED] += 1
        target.unanswered += 1
        if target.unanswered >= SILENT_FROM:
            bridge = ".".join(str(byte) for byte in target.steering.bridge)
            dscp = target.steering.dscp_bits >> 2
            self._context.ledger.warn(
                f"{target.name} does not answer",
                f"{target.unanswered} handoffs repeated; is packetbridge running at {bridge}, with "
                f"DSCP {dscp}, this VIP and port, and the same key?",
            )

    def _accepted(self, flow: Flow, offset: int) -> None:
        head = flow.head
        if head is None:
            return  # confirmed before; the answers to each part cross on the way
        head.confirmed = max(head.confirmed, offset)
        if head.confirmed >= head.owned:
            self._context.table.drop_head(flow)
            flow.handoff_bytes = 0
            self._context.fast.steer(flow)

    def _confirm(self, flow: Flow, now: float) -> None:
        """Send again what the bridge has not confirmed, or give up."""
        head, target = flow.head, flow.target
        if head is None or target is None:
            return
        context = self._context
        if flow.state is not State.HANDED or flow.closing:
            return
        head.tries += 1
        silence = target.pool.configured.silence
        if head.tries > CONFIRM_TRIES:
            context.ledger.counts[Handoffs.UNCONFIRMED] += 1
            context.reset_client(flow)
            context.forget_at_bridge(flow)
            context.table.remove(flow, now, Handoffs.UNCONFIRMED)
            return
        if now >= flow.handed_at + silence:
            self._pass_over(flow, None, Handoffs.SILENT, now)
        if flow.target is target:
            self._repeated(target)
            self._send_owned(flow, head, target, now)
        context.schedule.add(now + CONFIRM_AFTER * 2**head.tries, self._confirm, flow)

    def _send_owned(self, flow: Flow, head: Head, target: Target, now: float) -> None:
        """The bytes without a gap, from the first unconfirmed one, in segments of full size."""
        data, size = bytes(head.data), target.segment_bytes
        epoch = self._epoch(flow, now)
        flow.handoff_bytes = len(data)
        for at in range(head.confirmed, len(data), size):
            part = data[at : at + size]
            last = at + size >= len(data)
            ended = last and head.complete_fin()
            self._context.send(self._owned_segment(flow, head, target, at, part, ended, epoch))

    def _owned_segment(
        self, flow: Flow, head: Head, target: Target, at: int, part: bytes, fin: bool, epoch: int
    ) -> bytes:
        seq = (flow.first + at) & MASK
        options = self._context.option(flow, Kind.HANDOFF_CONFIRM, seq, epoch)
        if head.stamp is not None:
            options += tcp_options.encode_timestamps(*head.stamp)
        return build_along(
            target.steering.along(flow.key),
            ACK | PSH | (FIN if fin else 0),
            seq=seq,
            ack=flow.b + 1,
            window=head.window,
            options=options,
            payload=part,
            tos=target.steering.dscp_bits,
        )


def _anew(segment: Segment, options: bytes, flow: Flow, target: Target) -> bytes:
    """The segment in a packet of ours: what a client wrote into the IP header, a short time to live
    or options, must not keep it from a bridge that is to answer it."""
    return build_along(
        target.steering.along(flow.key),
        segment.flags,
        seq=segment.seq,
        ack=segment.ack,
        window=segment.window,
        options=options,
        payload=segment.payload,
        tos=target.steering.tos(segment.tos),
    )


def _readable(text: bytes) -> str:
    """For the log: what is not printable ASCII escaped, and not more than a line."""
    return text[:256].decode("ascii", "backslashreplace")
