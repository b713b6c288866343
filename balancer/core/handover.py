"""Handing a connection over, once it is known what is asked for."""

from __future__ import annotations

from functools import partial
from math import ceil

from balancer.core import handing
from balancer.core.catalogue import PoolLimit
from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.core.context import Context, Served
from balancer.core.flow import Flow, State
from balancer.core.flow_table import Admitted
from balancer.core.handing import Handoffs
from balancer.core.placing import place
from balancer.core.redispatch import CONFIRM_AFTER, Redispatch
from balancer.core.reply import RETRY_AFTER, Replied, reply_instead
from common.core.ledger import Outcome
from common.core.segment import PSH, Segment


class Failure(Outcome):
    """Why a request was not handed over."""

    TABLE_FULL = "flow_table_full"
    NOT_SERVED = "not_served"  # there is no backend that could take it
    OVER_LIMIT = "over_rate_limit"


class Handover:
    """Gives flows to bridges; what becomes of them then is ``redispatch``'s."""

    def __init__(self, context: Context, redispatch: Redispatch) -> None:
        self._context = context
        self._redispatch = redispatch

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
            reply_instead(self._context, flow, last, Replied.UNAVAILABLE, RETRY_AFTER, now)
            return context.ledger.drop(Failure.NOT_SERVED, last.data)
        if not context.table.hand(flow) and not make_room(context, flow, now):
            context.reset_client(flow)
            context.table.remove(flow, now, Failure.TABLE_FULL)
            return context.ledger.drop(Failure.TABLE_FULL, last.data)
        context.times.handoff.observe(now - flow.handed_at)
        flow.handed_at = now
        context.ledger.counts[Handoffs.BEGUN] += 1
        if context.ledger.verbose:
            line = bytes(head.data).lstrip().partition(b"\n")[0].rstrip()
            said = b"TLS" if flow.service.inspect == "tls" else line
            asked, chosen_by = (_readable(text) for text in (said, key))
            context.ledger.event(f"{flow}: {asked}; key {chosen_by} -> {target.name}")
        if head.owned:
            handing.send_owned(self._context, flow, head, target, now)
            for packet in head.behind_gap():
                context.send(target.steering.segment(packet))
            context.schedule.add(now + CONFIRM_AFTER, self._redispatch.confirm, flow)
            return context.ledger.took(Served.HEAD_KEPT)
        packets = head.forwardable()
        context.table.drop_head(flow)
        first = packets[0]
        flow.handoff_bytes = len(first.payload)
        # Who pushes a request of one segment has sent nothing behind it that may wait here and be
        # overtaken; and the first answer to the response may be quick.
        if len(packets) == 1 and last.flags & PSH:
            context.beforehand.append(partial(self._steer, flow))
        else:
            context.fast.steer(flow)
        handed = handing.made_of(self._context, flow, first, target, now)
        if len(packets) == 1:
            return context.ledger.passed(Served.STEERED, handed)
        context.send(handed)
        for packet in packets[1:]:
            context.send(target.steering.segment(packet))
        return context.ledger.took(Served.HEAD_KEPT)

    def _steer(self, flow: Flow) -> None:
        if flow.state is State.HANDED:
            self._context.fast.steer(flow, at_once=True)

    def _over_limit(
        self, flow: Flow, limit: PoolLimit, last: Segment, wait: float, now: float
    ) -> bytes | None:
        if limit.configured.over == "429":
            reply_instead(self._context, flow, last, Replied.TOO_MANY, ceil(wait), now)
        else:
            self._context.reset_client(flow)
            self._context.table.remove(flow, now, Failure.OVER_LIMIT)
        return self._context.ledger.drop(Failure.OVER_LIMIT, last.data)


def make_room(context: Context, flow: Flow, now: float) -> bool:
    """End the longest idle of the handed flows in favour of ``flow``. Its client learns it when it
    sends again; unless nobody reads it: then it may be picked up again, and its bridge keeps it."""
    idle = context.table.longest_idle(now)
    if idle is None:
        return False
    context.ledger.counts[Admitted.FLOW_EVICTED] += 1
    if not idle.unread:
        context.forget_at_bridge(idle)
    context.table.remove(idle, now, Admitted.FLOW_EVICTED)
    return context.table.hand(flow)


def _readable(text: bytes) -> str:
    """For the log: what is not printable ASCII escaped, and not more than a line."""
    return text[:256].decode("ascii", "backslashreplace")
