"""Ending connections that stand: at an operator's word, or as their backend has gone."""

from __future__ import annotations

from functools import partial
from itertools import islice

from balancer.core.choice.member import Member
from balancer.core.context import Context
from balancer.core.flow import Flow, State
from common.core.chores import Part
from common.core.ledger import Occurrence
from common.core.segment import SYN, build_along, reverse

# Seconds until a client is asked again: Linux answers the first at once, a second one not before
# half a second (tcp_invalid_ratelimit); and who is not known is reset when it insists.
ASK_AGAIN = 0.7
LOOKED_AT = 256  # flows in one go


class Killed(Occurrence):
    """Connections that were ended."""

    FLOWS = "flows_killed"


def kill(context: Context, flow: Flow, now: float) -> None:
    """End a connection for both sides.

    Which number a client expects next is not known once it has had a response. So it is asked: a
    SYN within a connection is answered with an acknowledgment (RFC 9293 section 3.10.7.4, RFC 5961
    section 4), and the balancer, which does not know the connection any more, resets whoever sends
    that, with the number it says.
    """
    context.ledger.counts[Killed.FLOWS] += 1
    if flow.unread:
        context.table.killed(flow.key, now)
    if flow.state is State.OPENING:
        context.forget_at_bridge(flow)
        context.reset_client(flow)
    elif flow.state is State.HANDED:
        context.forget_at_bridge(flow)
        _ask(context, flow)
        context.schedule.add(now + ASK_AGAIN, partial(_ask_again, context), flow)
    else:
        context.reset_client(flow)
    context.table.remove(flow, now, Killed.FLOWS)


def kill_those_of(context: Context, member: Member) -> Part:
    """The chore that ends all flows that a backend has now, some at a time."""
    flows = context.table.every()

    def part(now: float) -> bool:
        some = list(islice(flows, LOOKED_AT))
        for flow in some:
            if flow.state is State.HANDED and flow.target and flow.target.member is member:
                kill(context, flow, now)
        return bool(some)

    return part


def _ask(context: Context, flow: Flow) -> None:
    context.send(build_along(reverse(flow.key), SYN, seq=flow.b))


def _ask_again(context: Context, flow: Flow, _now: float) -> None:
    if context.table.find(flow.key) is None:  # else it has begun another
        _ask(context, flow)
