"""What bridges say of the connections that were handed to them."""

from __future__ import annotations

from collections.abc import Callable

from balancer.core.context import Context
from balancer.core.flow import Flow, State, incarnation
from balancer.core.redispatch import Redispatch
from balancer.core.request.head import offset_of
from balancer.core.uninspected import Uninspected
from common.core import handoff
from common.core.handoff import Kind
from common.core.ledger import Outcome
from common.core.segment import MASK, Segment


class Unheeded(Outcome):
    """Why an answer was not heeded."""

    BAD_MAC = "bad_answer_mac"
    OLD_EPOCH = "old_answer_epoch"
    NOT_AN_ANSWER = "not_an_answer"  # our option, but not from a bridge to a balancer
    UNKNOWN_FLOW = "answer_for_unknown_flow"


class Answer(Outcome):
    """What a bridge says."""

    ACCEPTED = "answer_accepted"
    ENDED = "answer_ended"
    REFUSED = "backend_refused"


class Answers:
    """``find`` gives the flow of a key, if there is one."""

    def __init__(
        self,
        context: Context,
        redispatch: Redispatch,
        find: Callable[[bytes, float], Flow | None],
        uninspected: Uninspected,
    ) -> None:
        self._context = context
        self._uninspected = uninspected
        self._redispatch = redispatch
        self._find = find

    def take(self, flow: Flow | None, segment: Segment, option: bytes, now: float) -> bytes | None:
        """A bridge's answer to a handoff. Never forwarded; the verdict is always to drop."""
        context = self._context
        drop, data = context.ledger.drop, segment.data
        message = handoff.decode(option)
        if message.kind < Kind.ACCEPTED:
            return drop(Unheeded.NOT_AN_ANSWER, data)
        if message.kind is Kind.ENDED:
            c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
            binding = handoff.Binding(segment.key, c, b, segment.seq, segment.payload)
        elif flow is not None and flow.target is not None:
            whose = flow.target.steering.bridge, flow.attempt
            binding = handoff.Binding(
                segment.key, flow.c, flow.b, segment.seq, segment.payload, *whose
            )
        else:
            return drop(Unheeded.UNKNOWN_FLOW, data)
        if handoff.signer(context.keys.accepted, option, binding, context.wall) is None:
            return drop(Unheeded.BAD_MAC, data)
        if not handoff.timely(option, context.wall):
            return drop(Unheeded.OLD_EPOCH, data)
        if message.kind is Kind.ENDED:
            return self._ended(segment, now)
        assert flow is not None, "an answer of another kind is about a flow"
        target = flow.target
        assert target is not None, "a handed flow has a target"
        target.unanswered = 0
        if message.kind is Kind.REFUSED:
            if flow.unread:  # nothing comes back but the word
                self._uninspected.given_back(flow, Answer.REFUSED, now)
                return drop(Answer.REFUSED, data)
            segment.check_checksum()  # what comes back is handed on as it is
            if not segment.payload and flow.head is None:
                return drop(Unheeded.NOT_AN_ANSWER, data)
            self._redispatch.given_back(flow, segment, Answer.REFUSED, now)
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
            if flow is None or not _is_about(flow, key + numbers):
                continue
            known, flow.seen = True, now
            flow.answered = True  # a server may have had the request: nobody else gets it
            context.table.drop_head(flow)
            context.table.ended(flow, now)
            context.fast.forget(flow)  # so that the kernel shakes hands with the next of it
            if flow.target is not None:
                flow.target.unanswered = 0
        if not known:
            return context.ledger.drop(Unheeded.UNKNOWN_FLOW, segment.data)
        return context.ledger.took(Answer.ENDED)

    def _accepted(self, flow: Flow, offset: int) -> None:
        head = flow.head
        if head is None:
            return  # confirmed before; the answers to each part cross on the way
        head.confirmed = max(head.confirmed, offset)
        if head.confirmed >= head.owned:
            self._context.table.drop_head(flow)
            flow.handoff_bytes = 0
            self._context.fast.steer(flow)


def _is_about(flow: Flow, incarnation: bytes) -> bool:
    """Whether a bridge that says this knows the flow. Of a connection that nobody reads either may
    have seen no SYN: its initial sequence number is 0 then."""
    if flow.unread and 0 in (flow.c, int.from_bytes(incarnation[12:16], "big")):
        return flow.target is not None
    return flow.state in (State.HANDED, State.OPENING) and flow.incarnation == incarnation
