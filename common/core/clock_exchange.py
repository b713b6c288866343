"""What time a bridge's host has, asked the way that a handoff goes.

The question is a segment from the VIP to the bridge with the service's DSCP and port, under a
handoff's MAC; so an answer says at once that the DSCP arrives, that a bridge runs which is
configured for this VIP and port and has the key, and what its clock shows. The VIP asks in its own
name, not a client's: of an address that routes elsewhere the answer would not come back.

The answer goes from the bridge's address to the VIP and the service's port, as all that a bridge
tells a balancer: firewalls that let handoffs work let it pass. It is a RST, which no host answers,
is shorter than the question, and is sent only to the VIP, for one who has the key: nobody can have
it sent to somebody else, or learn from it. A balancer that runs drops it, as of an unknown flow;
whoever asked hears it beside.

Both clocks are milliseconds since 1970 modulo 2**32: the question has them as timestamps, as a
handoff has the balancer's, the answer as its sequence number. The MAC of either is that of an epoch
by the sender's clock, and the answer's covers the question's random numbers: it is of now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import SystemRandom

from common.core import handoff
from common.core.handoff import Binding, Handoff, Kind
from common.core.keys import Keys
from common.core.segment import ACK, MASK, RST, Segment, build_along
from common.core.tcp_options import NO_SCALE, encode_timestamps

HALF = 1 << 31
_RANDOM = SystemRandom()


@dataclass(frozen=True, slots=True)
class Question:
    """To a bridge's address and port with a DSCP, from ``source``, a port of the VIP's. Addresses
    are 4 bytes; ``c`` and ``b`` stand where a handoff's initial sequence numbers would."""

    vip: bytes
    source: int
    bridge: bytes
    port: int
    dscp: int
    c: int = field(default_factory=lambda: _RANDOM.getrandbits(32))
    b: int = field(default_factory=lambda: _RANDOM.getrandbits(32))

    @property
    def flow(self) -> bytes:
        """The 12-byte key of the connection that it would be."""
        return self.vip + self.vip + self._ports

    @property
    def answer_key(self) -> bytes:
        """The 12-byte key of the segment that answers it."""
        return self.bridge + self.vip + self._ports

    @property
    def _ports(self) -> bytes:
        return self.source.to_bytes(2, "big") + self.port.to_bytes(2, "big")

    def packet(self, keys: Keys, wall: float) -> bytes:
        """The question as asked at ``wall``, in seconds since 1970."""
        seq = (self.c + 1) & MASK
        option = _option(keys, Kind.ASK_TIME, Binding(self.flow, self.c, self.b, seq), wall)
        now = _milliseconds(wall)
        return build_along(
            self.vip + self.bridge + self._ports,
            ACK,
            seq=seq,
            ack=self.b + 1,
            options=option + encode_timestamps(now, now),
            tos=self.dscp << 2,
        )

    def ahead(self, keys: Keys, packet: bytes, wall: float) -> float | None:
        """By how many seconds the bridge's clock is ahead of ``wall``, at which it answered; None
        if ``packet`` is not an authentic answer to this question. Raises MalformedError."""
        segment = Segment(packet)
        option = handoff.find(segment.options)
        if segment.key != self.answer_key or option is None:
            return None
        seconds = ((segment.seq - _milliseconds(wall) + HALF & MASK) - HALF) / 1000
        binding = Binding(self.flow, self.c, self.b, segment.seq)
        told = handoff.decode(option).kind is Kind.ACCEPTED
        right = told and handoff.authentic(keys, option, binding, wall + seconds)
        return seconds if right else None


def answer(keys: Keys, asked: Segment, vip: bytes, wall: float) -> bytes:
    """What a bridge for ``vip`` says to an authentic question, at ``wall`` by its clock."""
    flow = asked.src + vip + asked.key[8:]
    seq = _milliseconds(wall)
    binding = Binding(flow, (asked.seq - 1) & MASK, (asked.ack - 1) & MASK, seq)
    option = _option(keys, Kind.ACCEPTED, binding, wall)
    return build_along(asked.dst + vip + asked.key[8:], RST | ACK, seq=seq, options=option)


def _option(keys: Keys, kind: Kind, binding: Binding, wall: float) -> bytes:
    message = Handoff(kind, 0, 0, NO_SCALE, NO_SCALE, sack=False)
    return handoff.encode(keys, message, binding, handoff.epoch_at(wall))


def _milliseconds(wall: float) -> int:
    return int(wall * 1000) & MASK
