"""Packets of flows that the balancer does not know: it was started anew, or they never were.

Whoever insists, or is still unknown after a while, is told by RST that the connection is gone. Only
a bridge can tell the server, and none says which one has the flow: ends go to all of the service's.
"""

from __future__ import annotations

from balancer.core import handshake
from balancer.core.context import Context
from balancer.core.service import Service
from common.core.ledger import Occurrence, Outcome
from common.core.remembered import Remembered
from common.core.segment import RST, Segment, build_along, reverse
from common.core.unknown_flows import Overdue, TokenBucket, UnknownFlows

COPIES_PER_SECOND = 1000.0  # of ends, to bridges
ENOUGH_SECONDS = 1.0  # in which one end of a flow is enough


class Unknown(Outcome):
    """Why a packet of no flow was dropped."""

    UNKNOWN_FLOW = "unknown_flow"
    RESET_UNKNOWN = "unknown_flow_reset"


class GivenUp(Occurrence):
    """Flows that were reset without a packet that caused it."""

    OVERDUE = "unknown_flow_overdue"  # it did not insist, and did not become known


class Strangers:
    """What is done about them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unknown = UnknownFlows()
        self._overdue = Overdue()
        self._ended = Remembered(ENOUGH_SECONDS, 32768)
        self._copies = TokenBucket(COPIES_PER_SECOND, COPIES_PER_SECOND)

    def segment(self, service: Service, segment: Segment, now: float) -> bytes | None:
        """The verdict on a packet with ACK and without a cookie of ours."""
        drop = self._context.ledger.drop
        if self._unknown.insists(segment.key, now):
            self._disown(service, segment.key, segment.seq, segment.ack, segment.span > 0, now)
            return drop(Unknown.RESET_UNKNOWN, segment.data)
        if not handshake.unused(self._context, segment):
            patience = self._overdue.note(segment)
            if patience is not None:
                self._context.schedule.add(now + patience, self._give_up, (service, segment.key))
        return drop(Unknown.UNKNOWN_FLOW, segment.data)

    def reset(self, service: Service, segment: Segment, now: float) -> bytes | None:
        """The verdict on a client's RST."""
        self._end_at_bridges(service, segment.key, segment.seq, now)
        return self._context.ledger.drop(Unknown.UNKNOWN_FLOW, segment.data)

    def _give_up(self, lost: tuple[Service, bytes], now: float) -> None:
        """A flow that was unknown, and still is: its client may not speak again for long."""
        service, key = lost
        seq, ack, waiting = self._overdue.take(key)
        if self._context.table.find(key) is None and self._unknown.resets.take(now):
            self._context.ledger.counts[GivenUp.OVERDUE] += 1
            self._disown(service, key, seq, ack, waiting, now)

    def _disown(
        self, service: Service, key: bytes, seq: int, ack: int, waiting: bool, now: float
    ) -> None:
        """Reset the client of an unknown flow. A server that sends to it learns from the client's
        own RST; one that is ``waiting`` for the client's bytes is told here."""
        self._context.send(build_along(reverse(key), RST, seq=ack))
        if waiting:
            self._end_at_bridges(service, key, seq, now)

    def _end_at_bridges(self, service: Service, key: bytes, seq: int, now: float) -> None:
        """A RST as from the client: the bridge that has the flow judges whether it is right."""
        if self._ended.holds(key, now):
            return
        self._ended.add(key, now)
        for target in service.targets:
            if self._copies.take(now):
                steering = target.steering
                along = steering.along(key)
                self._context.send(build_along(along, RST, seq=seq, tos=steering.dscp_bits))
