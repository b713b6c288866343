"""Ending connections that stand: at an operator's word, or as their backend has gone.

The balancer does not know what the client expects next, as it never sees what the server sends. A
bare SYN asks: an established client answers it with what an exact RST takes (the challenge ACK of
RFC 5961 section 4.2), and so does whatever else it sends.
"""

from __future__ import annotations

from itertools import islice

from balancer.core.choice.member import Member
from balancer.core.context import Context
from balancer.core.flow import Flow, State
from common.core.chores import Part
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, RST, SYN, Segment, build_along, reverse

LOOKED_AT = 256  # flows in one go


class Killed(Outcome):
    """What became of a packet of a flow that is being ended."""

    RESET = "client_reset_by_us"
    AFTER = "after_our_end"


class Ends(Occurrence):
    """Connections ended by us."""

    BEGUN = "flows_killed"


class Ending:
    """Ends flows, one or all of a backend."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def end(self, flow: Flow, now: float) -> None:
        """End a flow, whatever its state: its server by its bridge, its client by RST."""
        context = self._context
        context.ledger.counts[Ends.BEGUN] += 1
        if flow.state is not State.HANDED:
            context.reset_client(flow)
            context.table.remove(flow, now)
            return
        context.forget_at_bridge(flow)
        context.fast.forget(flow)
        flow.release(now)
        flow.killed, flow.closing, flow.seen = True, True, now
        context.send(build_along(reverse(flow.key), SYN, seq=flow.b))

    def of_member(self, member: Member) -> Part:
        """The chore that ends all flows that a backend has now, some at a time."""
        flows = iter(list(self._context.table.handed.values()))

        def part(now: float) -> bool:
            some = list(islice(flows, LOOKED_AT))
            for flow in some:
                if flow.state is State.HANDED and flow.target and flow.target.member is member:
                    self.end(flow, now)
            return bool(some)

        return part

    def insist(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """The verdict on what the client of such a flow sends."""
        context = self._context
        if not segment.flags & ACK or segment.flags & RST:
            return context.ledger.took(Killed.AFTER)
        context.send(build_along(reverse(segment.key), RST, seq=segment.ack))
        context.table.remove(flow, now)
        return context.ledger.took(Killed.RESET)
