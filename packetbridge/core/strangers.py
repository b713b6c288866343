"""Packets of flows that the bridge does not know: not yet, no longer, or since it was started anew.

Whoever insists, or is still unknown after a while, is told by RST that the connection is gone, and
so is the other side as far as it can be found.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, FIN, RST, SYN, Segment, reverse
from common.core.unknown_flows import Overdue, TokenBucket, UnknownFlows
from packetbridge.core.context import Context, Served
from packetbridge.core.early import Early
from packetbridge.core.entry import Entry

PROBES_PER_SECOND = 1000.0  # questions and resets for flows that nobody knows
ASK_AGAIN = (1.0, 2.0)  # seconds between questions to a client
MAX_LOST = 32768  # connections that clients are being asked about


class Unknown(Outcome):
    """Why a packet of no flow was dropped."""

    UNKNOWN_FLOW = "unknown_flow"
    RESET_UNKNOWN = "unknown_flow_reset"
    LATE = "late_packet"  # of a flow that has ended
    ORPHAN = "orphaned_backend_packet"  # the server's connection outlived the bridge's record


class GivenUp(Occurrence):
    """Flows that were reset without a packet that caused it."""

    OVERDUE = "unknown_flow_overdue"  # it did not insist, and did not become known


@dataclass(slots=True)
class Lost:
    """A connection that the bridge has lost: ``inbound`` is the key of its client's packets,
    ``address`` that of packets to its server, which has said ``seq`` last and expects ``ack``."""

    entry: Entry
    inbound: bytes
    address: bytes
    seq: int
    ack: int
    asked: int = 0


class Strangers:
    """``early`` keeps what may have overtaken its handoff."""

    def __init__(self, context: Context, early: Early) -> None:
        self._context = context
        self._early = early
        # Three sightings: a tail loss probe (RFC 8985 section 7) repeats the last segment of a flow
        # whose handoff was lost, and comes before what repeats the handoff.
        self._unknown = UnknownFlows(sightings=3)
        self._overdue = Overdue()
        self._told = UnknownFlows()  # clients that were asked, or reset, for a connection we lost
        self._lost: dict[bytes, Lost] = {}
        self._probes = TokenBucket(PROBES_PER_SECOND, PROBES_PER_SECOND)

    def from_client(
        self, entry: Entry, segment: Segment, now: float, leaving: bool
    ) -> bytes | None:
        """The verdict on a client's packet; ``leaving``: all flows have been ended."""
        drop = self._context.ledger.drop
        if self._context.table.is_elsewhere(entry.dscp, segment.key, now):
            return drop(Unknown.LATE, segment.data)
        if segment.flags & RST:
            self._client_is_gone(segment.key)
            return drop(Unknown.UNKNOWN_FLOW, segment.data)
        told = leaving or self._told.known(segment.key, now)
        # The same segment again: others of the flow may follow a handoff that was lost and is yet
        # to be repeated.
        again = segment.key + segment.seq.to_bytes(4, "big")
        if segment.flags & ACK and told:
            self._context.to_client(entry, segment.key, RST, seq=segment.ack)
            return drop(Unknown.RESET_UNKNOWN, segment.data)
        if segment.flags & ACK and self._unknown.insists(again, now):
            self._disown(entry, segment.key, segment.seq, segment.ack, now)
            return drop(Unknown.RESET_UNKNOWN, segment.data)
        if segment.payload or segment.flags & FIN:
            segment.check_checksum()  # as of all that is held
            self._early.keep(entry.dscp, segment, now)
        if segment.flags & ACK and (patience := self._overdue.note(segment)) is not None:
            self._context.schedule.add(now + patience, self._give_up, (entry, segment.key))
        return drop(Unknown.UNKNOWN_FLOW, segment.data)

    def from_server(
        self, servers: list[Entry], segment: Segment, now: float, mark: int
    ) -> bytes | None:
        """The verdict on a server's packet: one of a direct connection goes on; one of a spliced
        socket that we do not know any more (the mark tells) ends its connection on both sides.

        The client is sent a SYN: if it has the connection, it answers with an acknowledgment that
        says what a RST must carry (RFC 5961 section 4), and once it has not, with a RST. The server
        is reset only then, as nothing but what it sends again shows that there was a connection.
        """
        entry = next((entry for entry in servers if entry.mark == mark), None)
        if entry is None:
            return self._context.ledger.passed(Served.DIRECT, segment.data)
        context = self._context
        if context.table.was_spliced(segment.key, now):
            return self._late(entry, segment)
        if segment.flags & RST or not self._probes.take(now):
            return context.ledger.drop(Unknown.ORPHAN, segment.data)
        address = reverse(segment.key)
        if segment.flags & SYN or entry.own_source:  # the client's side did not begin, or who knows
            context.send(entry, address, RST, seq=segment.ack)
        else:
            self._lose(entry, address, segment, now)
        return context.ledger.drop(Unknown.ORPHAN, segment.data)

    def _lose(self, entry: Entry, address: bytes, segment: Segment, now: float) -> None:
        inbound = address[:4] + entry.address + address[8:10] + entry.port.to_bytes(2, "big")
        lost = self._lost.get(inbound)
        if lost is not None:  # the client is being asked
            lost.seq, lost.ack = segment.seq, segment.ack
        elif len(self._lost) < MAX_LOST:
            self._told.remember(inbound, now)
            lost = self._lost[inbound] = Lost(entry, inbound, address, segment.seq, segment.ack)
            self._ask(lost, now)

    def _known(self, entry: Entry, key: bytes) -> bool:
        return key in self._context.table.inbound[entry.dscp]

    def _give_up(self, lost: tuple[Entry, bytes], now: float) -> None:
        """A flow that was unknown, and still is: its client may not speak again for long."""
        entry, key = lost
        seq, ack, _ = self._overdue.take(key)
        known = self._known(entry, key) or self._context.table.is_elsewhere(entry.dscp, key, now)
        if not known and self._unknown.resets.take(now):
            self._context.ledger.counts[GivenUp.OVERDUE] += 1
            self._disown(entry, key, seq, ack, now)

    def _disown(self, entry: Entry, key: bytes, seq: int, ack: int, now: float) -> None:
        """Reset the client of an unknown flow. Its server, which may be waiting for the client's
        bytes, is made to speak by a keep-alive probe (RFC 9293 section 3.8.4)."""
        self._told.remember(key, now)  # what else it has on its way is answered at once
        self._context.to_client(entry, key, RST, seq=ack)
        if not entry.own_source:
            address = key[:4] + entry.server + key[8:10] + entry.server_port.to_bytes(2, "big")
            self._context.send(entry, address, ACK, seq=seq - 1)

    def _ask(self, lost: Lost, now: float) -> None:
        """Ask the client, and again a little later; after that, when the server sends again."""
        if self._lost.get(lost.inbound) is not lost:
            return  # it is over
        if self._known(lost.entry, lost.inbound):  # the client has gone on to another connection
            self._client_is_gone(lost.inbound)
            return
        if lost.asked > len(ASK_AGAIN):
            del self._lost[lost.inbound]
            return
        self._context.to_client(lost.entry, lost.inbound, SYN, seq=lost.seq)
        wait = ASK_AGAIN[min(lost.asked, len(ASK_AGAIN) - 1)]
        lost.asked += 1
        self._context.schedule.add(now + wait, self._ask, lost)

    def _client_is_gone(self, inbound: bytes) -> None:
        lost = self._lost.pop(inbound, None)
        if lost is not None and reverse(lost.address) not in self._context.table.outbound:
            self._context.send(lost.entry, lost.address, RST, seq=lost.ack)

    def _late(self, entry: Entry, segment: Segment) -> bytes | None:
        """A server's packet for a flow that is over: only a SYN-ACK still wants an answer."""
        if segment.flags & (SYN | RST) == SYN:
            address = reverse(segment.key)
            self._context.send(entry, address, RST, seq=segment.ack)
        return self._context.ledger.drop(Unknown.LATE, segment.data)
