"""Bridges behind a balancer, each in a mood of its own: they take what is handed to them, give it
back, are silent, or answer late, when somebody else has it already."""

from __future__ import annotations

import random
import socket
from collections import OrderedDict, deque
from typing import NamedTuple

from balancer.core.engine import Balancer
from common.core import handoff
from common.core.handoff import Kind
from common.core.segment import ACK, Segment, build
from tests.fuzz.place import Place
from tests.fuzz.world import Fed

MASK = 0xFFFFFFFF
MOODS = ("well", "well", "well", "well", "refusing", "silent", "mixed")
CHANGES = 0.1  # how often a bridge's mood changes, of what it hears
KEPT = 400  # answers that are remembered


class Attempt(NamedTuple):
    """Which attempt at which connection: what an authentic answer is about."""

    key: bytes
    c: int
    b: int
    bridge: bytes
    number: int


class Bridges:
    """``to_say`` collects what they answer. ``core`` is only asked which connection a part of an
    owned request is of."""

    def __init__(
        self, rng: random.Random, place: Place, core: Balancer, addresses: tuple[str, ...]
    ) -> None:
        self._rng, self._place, self._core = rng, place, core
        self._moods = {socket.inet_aton(each): "well" for each in addresses}
        self.to_say: deque[Fed] = deque()
        self._answers: OrderedDict[bytes, Attempt] = OrderedDict()

    def hears(self, packet: bytes) -> None:
        """A packet that the balancer sent, or let go on."""
        rng, bridge = self._rng, packet[16:20]
        if bridge not in self._moods or packet[9] != 6:
            return
        segment = Segment(packet)
        option = handoff.find(segment.options)
        if option is None:
            return
        message = handoff.decode(option)
        assert message.kind < Kind.ACCEPTED, "a balancer's word"
        attempt = self._attempt(segment, option)
        if message.kind is Kind.FORGET or attempt is None:
            return
        if rng.random() < CHANGES:
            self._moods[bridge] = rng.choice(MOODS)
        mood = self._moods[bridge]
        if mood == "mixed":
            mood = rng.choice(MOODS)
        first = segment.seq == (attempt.c + 1) & MASK
        if mood == "refusing" and first:
            self._answer(attempt, Kind.REFUSED, segment.seq, segment.payload)
        elif mood == "well" and message.kind is Kind.HANDOFF_CONFIRM:
            self._answer(attempt, Kind.ACCEPTED, segment.seq + len(segment.payload))

    def _attempt(self, segment: Segment, option: bytes) -> Attempt | None:
        """What a handoff is about, whose hash has to say so."""
        vip = socket.inet_aton(self._place.vips[segment.tos >> 2])
        key = segment.src + vip + segment.key[8:]
        b = (segment.ack - 1) & MASK
        flow = self._core.table.find(key)
        firsts = {(segment.seq - 1) & MASK}
        if flow is not None and flow.b == b:
            firsts.add(flow.c)
        for c in firsts:
            for number in range(handoff.ATTEMPTS):
                binding = handoff.Binding(key, c, b, segment.seq, attempt=number)
                if handoff.authentic(self._place.keys, option, binding, self._core._context.wall):
                    return Attempt(key, c, b, segment.dst, number)
        assert flow is None or flow.b != b or flow.c in firsts, "a handoff under another key"
        return None

    def _answer(self, about: Attempt, kind: Kind, seq: int, rest: bytes = b"") -> None:
        seq &= MASK
        key = about.key
        binding = handoff.Binding(key, about.c, about.b, seq, rest, about.bridge, about.number)
        message = handoff.Handoff(kind, 0, 0, 15, 15, sack=False)
        epoch = handoff.epoch_at(self._core._context.wall)
        option = handoff.encode(self._place.keys, message, binding, epoch)
        client, vip = key[:4], key[4:8]
        ports = (int.from_bytes(key[at : at + 2], "big") for at in (8, 10))
        ack = (about.b + 1) & MASK
        packet = build(
            client, vip, *ports, seq=seq, ack=ack, flags=ACK, options=option, payload=rest
        )
        self._answers[packet] = about
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        if self._rng.random() < 0.7:
            self.to_say.append((packet, 0))
        else:  # whatever is said meanwhile overtakes it
            self.to_say.insert(self._rng.randint(0, len(self.to_say)), (packet, 0))

    def is_stale(self, packet: bytes) -> bool:
        """Whether the packet is an answer about an attempt that is not under way (any more)."""
        about = self._answers.get(packet)
        if about is None:
            return False
        flow = self._core.table.handed.get(about.key)
        if flow is None or flow.target is None or (flow.c, flow.b) != (about.c, about.b):
            return True
        return (flow.target.steering.bridge, flow.attempt) != (about.bridge, about.number)
