"""What becomes of a connection that was handed over until its bridge has it for good: its client
repeats the request, the bridge is silent, or gives it back; another backend gets it, or nobody.

What a client repeats may mean that the bridge is away, or that an acknowledgment was lost. So a
repeated handoff asks for an answer: from a bridge that gives none in the pool's ``silence`` the
connection is taken, and one that answers has it for good, unless it gives it back itself. What is
taken from a bridge is forgotten there first, if it can hear: two backends never both answer one
request unless packets are held up for longer than that between balancer and bridge.
"""

from __future__ import annotations

from functools import partial

from balancer.core import handing
from balancer.core.context import Context, Served
from balancer.core.flow import Flow, State
from balancer.core.handing import Handoffs
from balancer.core.placing import place_elsewhere
from balancer.core.reply import RETRY_AFTER, Replied, reply_instead
from balancer.core.service import Target
from common.core import handoff
from common.core.handoff import Kind
from common.core.ledger import Outcome
from common.core.segment import Segment
from common.core.unknown_flows import UnknownFlows

CONFIRM_AFTER = 0.2  # seconds to the first repetition, doubled at each
CONFIRM_TRIES = 5
BETWEEN_ATTEMPTS = 1.0  # seconds, at the only backend that there is
SHORTEST = 0.25  # seconds: what a question and its answer may take at least
# Seconds; a bridge asks its server for ten, and then gives the connection back.
GIVE_UP_AFTER = 12.0
LAST_CHANCE = 1.0  # for what a repeated handoff brings about to come back as an acknowledgment


class Repeated(Outcome):
    """What became of a request that its client repeats."""

    ON_ITS_WAY = "handoff_on_its_way"  # we repeat it already, until the bridge confirms it


class Redispatch:
    """Repeats handoffs, and hands over again what one backend cannot serve."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._repeating = UnknownFlows(sightings=3)  # not one late duplicate of a request

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
        flow.seen = now
        if self._repeating.insists(flow.incarnation, now):
            when = max(flow.handed_at + GIVE_UP_AFTER, now + LAST_CHANCE)
            context.schedule.add(when, partial(self._give_up, now), flow)
        if handing.too_late(context, flow, now):
            context.ledger.counts[Handoffs.TOO_LATE] += 1
            return context.ledger.passed(Served.STEERED, target.steering.segment(segment))
        handing.count_repeated(self._context, target)
        if len(segment.payload) > flow.handoff_bytes:
            flow.handoff_bytes = len(segment.payload)
            context.fast.steer(flow)
        if flow.answered or len(segment.payload) > target.segment_bytes:
            # the latter as long as it comes: should it get lost by that, no bridge is to blame
            again = handing.made_of(self._context, flow, segment, target, now)
        else:
            silence = target.pool.configured.silence
            if not flow.silent_at:
                until = max(flow.handed_at + silence, now + SHORTEST)
                self._expect_answer(flow, target, segment, until)
            again = handing.made_of(self._context, flow, segment, target, now, Kind.HANDOFF_CONFIRM)
        return context.ledger.passed(Served.STEERED, again)

    def confirm(self, flow: Flow, now: float) -> None:
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
            handing.count_repeated(self._context, target)
            handing.send_owned(self._context, flow, head, target, now)
        context.schedule.add(now + CONFIRM_AFTER * 2**head.tries, self.confirm, flow)

    def given_back(self, flow: Flow, segment: Segment, why: Outcome, now: float) -> None:
        """A bridge gives a flow back, in what the client's request begins with; ``why`` is counted
        against the backend."""
        former = flow.target
        assert former is not None, "a handed flow has a target"
        client = flow.key[:4]
        self._context.health.suspected(former.pool.name, former.name, why, client, now)
        if self._goes_elsewhere(flow, segment, now):
            return
        flow.attempt += 1
        if flow.attempt > min(former.pool.configured.retries, handoff.ATTEMPTS - 1):
            reply_instead(self._context, flow, segment, Replied.UNAVAILABLE, RETRY_AFTER, now)
        else:
            when = max(flow.handed_at + BETWEEN_ATTEMPTS, now)
            self._context.schedule.add(when, partial(self._attempt, flow.attempt, segment), flow)

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
        handing.name_silent(self._context, former)
        self._context.health.suspected(former.pool.name, former.name, reason, flow.key[:4], now)
        option = self._context.forgetting(flow)
        if self._goes_elsewhere(flow, segment, now):
            self._context.send(option)

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
            handing.send_owned(self._context, flow, flow.head, target, now)
            return
        assert segment is not None, "what is not our own is the client's to repeat"
        flow.handoff_bytes = len(segment.payload)
        self._context.fast.steer(flow)
        self._expect_answer(flow, target, segment, now + target.pool.configured.silence)
        self._context.send(
            handing.made_of(self._context, flow, segment, target, now, Kind.HANDOFF_CONFIRM)
        )

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
