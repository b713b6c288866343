"""Clients and bridges of a balancer: honest ones, whose packets the world then changes."""

from __future__ import annotations

import random
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator

from balancer.core import config
from balancer.core.answers import Answer
from balancer.core.catalogue import built, even
from balancer.core.engine import Balancer
from common.core import handoff
from common.core.errors import MalformedError
from common.core.handoff import Kind
from common.core.keys import Keyring
from common.core.ledger import Ledger
from common.core.segment import ACK, FIN, PSH, RST, SYN, Segment, build, reverse
from tests.fuzz import datagrams, recorded
from tests.fuzz.balancer_operator import BalancerOperator
from tests.fuzz.bridges import Bridges
from tests.fuzz.configurations import Configurations
from tests.fuzz.datagrams import DatagramClient
from tests.fuzz.hellos import hello
from tests.fuzz.invariants import balancer_adds_up
from tests.fuzz.kernels import Shaking
from tests.fuzz.mutations import OPTIONS, repair, tcp_valid, valid
from tests.fuzz.noise import Ends, Noise
from tests.fuzz.place import PORT, Place
from tests.fuzz.requests import pieces, request
from tests.fuzz.world import Conversation, Fed

MASK = 0xFFFFFFFF
LIMITS = {
    "waiting": 60, "flows": 200, "buffered_bytes": 65536, "closed": 100,
    "mappings": datagrams.MAPPINGS,
}  # fmt: skip
VARIANTS = (  # limits, and what the services are configured with at first
    ({}, {}),
    (LIMITS, {"bad_request": "source-hash", "max_head": 2048}),
    ({**LIMITS, "flows": 20, "closed": 262144}, {"window_scale": 0}),
    ({**LIMITS, "waiting": 20, "flows": 20}, {"inspect": "none"}),
)
REMEMBERED = 5000  # answers of the balancer's own
UNBOUNDED = 100_000  # closed flows: then none is forgotten before its time


class BalancerSide:
    """A balancer with a service for each VIP; ``variant`` is an index into VARIANTS."""

    def __init__(self, rng: random.Random, variant: int, place: Place) -> None:
        limits, service = VARIANTS[variant]
        backends = tuple(config.Backend(f"b{n}", bridge) for n, bridge in enumerate(place.bridges))
        services = [
            config.Service(vip, vip, PORT, dscp, "p", **service) for dscp, vip in place.vips.items()
        ]
        pool = config.Pool("p", backends, table_size=251)
        services += datagrams.services(rng, list(place.vips.items()))
        whole = config.Config(tuple(services), pools=(pool, datagrams.pool(rng, backends)))
        self.rng, self.place = rng, place
        self.keys = place.keys
        self.limits = config.Limits(**limits)
        kernel = Shaking(rng) if variant else None
        self.core = Balancer(
            built(whole, even(whole), place.now),
            self.limits,
            config.Timeouts(request=60.0),
            Keyring([self.keys]),
            Ledger(verbose=True),  # packets reach what is logged, too
            place.now,
            place.wall_offset,
            kernel,
        )
        if kernel is not None:
            kernel.core = self.core
        self.clients: dict[bytes, Client] = {}
        self._recorded = recorded.connections("balancer")
        configurations = Configurations(rng, place, self.limits)
        self._operator = BalancerOperator(rng, self.core, configurations, place)
        self._bridges = Bridges(rng, place, self.core, configurations.bridges)
        self.to_say = self._bridges.to_say
        self._said: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._stale: int | None = None  # what was believed before a stale answer

    def epoch(self) -> int:
        return handoff.epoch_at(self.core._context.wall)

    def noise(self) -> Noise:
        place = self.place
        client, vip = f"{place.clients}.{place.hosts[0]}", next(iter(place.vips.values()))
        ends: list[Ends] = [
            (client, vip, None, PORT),
            (client, vip, None, None),
            (place.bridges[0], vip, PORT, PORT),
        ]
        return Noise(self.rng, ends)

    def begin(self) -> Conversation:
        if self.rng.random() < 0.08:
            return DatagramClient(self.rng, self.place)
        client = Client(self)
        if self.rng.random() < 0.4:
            client = Again(self, self.rng.choice(self._recorded))
        self.clients[client.key] = client
        return client

    def deliver(self, packet: bytes, sound: bool) -> None:
        assert tcp_valid(packet), packet.hex()
        segment = Segment(packet)
        key = reverse(segment.key)
        if segment.tos >> 2:
            self._no_second_answer(segment)
            self._bridges.hears(packet)
            return
        assert valid(packet), packet.hex()
        client = self.clients.get(key)
        if client is not None and segment.flags & (SYN | ACK) == SYN | ACK:
            client.b, client.echo = segment.seq, packet[44:48] if client.stamps else bytes(4)
        elif client is not None and segment.flags & SYN:
            self.to_say.append(client.challenged())
        elif segment.payload:
            self._one_answer(key, segment)

    def passed(self, packet: bytes) -> None:
        try:
            segment = Segment(packet)
        except MalformedError:
            return  # ICMP, or what no bridge takes
        self._no_second_answer(segment)
        self._bridges.hears(packet)

    def _one_answer(self, key: bytes, segment: Segment) -> None:
        """What the balancer says itself, it says alike each time."""
        said = self._said.setdefault((key, (segment.seq - 1) & MASK), segment.payload)
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        assert said == segment.payload or self.limits.closed < UNBOUNDED

    def _no_second_answer(self, segment: Segment) -> None:
        """What it has answered goes to no bridge any more."""
        option = handoff.find(segment.options)
        if option is None or handoff.decode(option).kind is Kind.FORGET:
            return
        vip = socket.inet_aton(self.place.vips[segment.tos >> 2])
        about = segment.src + vip + segment.key[8:], (segment.ack - 1) & MASK
        assert about not in self._said or self.limits.closed < UNBOUNDED

    def feeding(self, packet: bytes) -> None:
        self._stale = self._believed() if self._bridges.is_stale(packet) else None

    def operate(self, now: float) -> None:
        self._operator.act(now)

    def holds(self) -> None:
        if self._stale is not None:
            assert self._believed() == self._stale, "an answer of a former attempt"
            self._stale = None
        balancer_adds_up(self.core, self._operator.known)

    def _believed(self) -> int:
        counts = self.core.counts()
        return sum(counts[name] for name in Answer if name is not Answer.ENDED)

    def is_empty(self) -> bool:
        table = self.core.table
        flows = (table.handed, table.waiting, table.opening, self.core.datagrams.table.mappings)
        return not any(flows) and not table.buffered_bytes

    def bounds(self) -> dict[str, int]:
        limits = self.limits
        return {
            "waiting": limits.waiting,
            "opening": limits.waiting,
            "flows": limits.flows,
            "mappings": limits.mappings,
            # one head more than the bound may be kept, and that one whole
            "buffered_bytes": limits.buffered_bytes + 200_000,
        }


class Client:
    """One client's connections, one after the other, and the bridge's words about them."""

    def __init__(self, side: BalancerSide) -> None:
        rng = side.rng
        self.side, self.rng = side, rng
        self.address, self.port = side.place.client(rng)
        _, self.vip = side.place.vip(rng)
        self.key = self.address + self.vip + struct.pack("!HH", self.port, PORT)
        self.c = self.b = -1
        self.stamps = True
        self.echo = bytes(4)

    def script(self) -> Iterator[Fed]:
        for _ in range(self.rng.choice((1, 1, 2))):  # a port may be used again
            yield from self._connection()

    def _connection(self) -> Iterator[Fed]:
        rng = self.rng
        self.c, self.b = rng.getrandbits(32), -1
        self.stamps = rng.random() < 0.8
        for _ in range(3):
            yield self._syn()
            if self.b >= 0:
                break
        else:
            yield from self._unread()
            return
        if rng.random() < 0.8:
            yield self._segment()
        draw = rng.random()
        if draw < 0.05:
            yield from self._closed_early()
            return
        data = hello(rng) if self._is_asked_for_tls() else request(rng)
        ended = rng.random() < 0.1
        for at, piece in pieces(rng, data):
            last = at + len(piece) == len(data)
            yield self._segment(piece, at, flags=ACK | PSH | (FIN if ended and last else 0))
            if rng.random() < 0.05:
                yield self._segment(b"\0" if rng.random() < 0.5 else b"", -1)  # a keep-alive
        for at in range(0, len(data), 1440):  # what was lost, sent again
            if self.key not in self.side.core.table.waiting or rng.random() < 0.3:
                break
            yield self._segment(data[at : at + 1440], at, flags=ACK | PSH)
        for _ in range(rng.choice((0, 0, 1, 3))):  # nobody answers
            yield self._segment(data[:1440], 0, flags=ACK | PSH)
        if rng.random() < 0.6:
            yield self._answer(Kind.ACCEPTED, len(data))
        if self.key in self.side.core.table.handed or rng.random() < 0.2:
            yield from self._spliced(data)

    def _is_asked_for_tls(self) -> bool:
        """Mostly as the service has it that it talks to."""
        services = self.side.core.services
        kinds = {each.vip: each.inspect for each in services if each.port == PORT}
        return (kinds.get(self.vip) == "tls") != (self.rng.random() < 0.05)

    def _unread(self) -> Iterator[Fed]:
        """Nobody here answers the SYN: it may have been steered, to a server of its own."""
        rng, at = self.rng, 0
        self.b = rng.getrandbits(32)
        for _ in range(rng.choice((1, 4, 15))):
            draw = rng.random()
            if draw < 0.55:
                part = rng.randbytes(rng.choice((0, 1, 1440)))
                yield self._segment(part, at, acked=rng.choice((0, 1440)))
                at += len(part)
            elif draw < 0.65:
                yield self._syn()
            elif draw < 0.7:
                yield self._icmp()
            elif draw < 0.8:
                yield self._segment(b"", at, flags=rng.choice((RST, FIN | ACK, FIN, PSH)))
            else:
                server, self.b = self.b, 0  # what bridges go by
                kinds = (Kind.REFUSED, Kind.REFUSED, Kind.ACCEPTED, Kind.ENDED, Kind.HANDOFF)
                c, self.c = self.c, rng.choice((self.c, self.c, 0))
                yield self._answer(rng.choice(kinds), 0)
                self.b, self.c = server, c

    def challenged(self) -> Fed:
        """A SYN within the connection (RFC 5961 section 4)."""
        return self._segment(b"", 0, acked=self.rng.choice((0, 1000)))

    def _closed_early(self) -> Iterator[Fed]:
        yield self._segment(flags=FIN | ACK)
        yield self._segment(flags=self.rng.choice((FIN | ACK, ACK, RST)))
        yield self._segment(b"", 1, acked=1)

    def _spliced(self, data: bytes) -> Iterator[Fed]:
        rng, at, acked = self.rng, len(data), 0
        for _ in range(rng.choice((1, 5, 20, 60))):
            acked += rng.choice((0, 1440, 14400))
            if self.key not in self.side.core.table.handed and rng.random() < 0.5:
                return
            draw = rng.random()
            if draw < 0.75:
                yield self._segment(b"", at, acked=acked)
            elif draw < 0.82:
                part = rng.randbytes(rng.choice((1, 200, 1440)))
                yield self._segment(part, at, acked=acked)
                at += len(part)
            elif draw < 0.88:
                yield self._segment(data[:1440], 0, flags=ACK | PSH)  # a handoff again
            elif draw < 0.92:
                yield self._icmp()
            else:
                yield self._answer(rng.choice(list(Kind)), rng.choice((0, len(data), at)))
        end = rng.random()
        if end < 0.5:
            yield self._segment(b"", at, acked=acked, flags=FIN | ACK)
            yield self._segment(b"", at + 1, acked=acked + 1)
            yield self._answer(Kind.ENDED, 0)
        elif end < 0.7:
            yield self._segment(b"", at, flags=RST)
        elif end < 0.8:
            yield self._answer(Kind.REFUSED, 0)
        if rng.random() < 0.3:
            yield self._segment(data[:1440], 0)  # late, of a connection that is over

    def _syn(self) -> Fed:
        rng = self.rng
        raw = b"\x02\x04\x05\xb4\x04\x02" + (
            b"\x08\x0a" + bytes(7) + b"\x01" if self.stamps else b"\x01\x01"
        )
        raw += b"\x01\x03\x03\x07" if rng.random() < 0.8 else b""
        if not self.stamps and rng.random() < 0.2:
            raw = rng.choice(OPTIONS)
            raw += bytes(-len(raw) % 4)
        flags = SYN | (0 if rng.random() < 0.9 else rng.choice((0xC0, 8, FIN, RST, ACK)))
        return self._built(flags, self.c, 0, raw, b""), 0

    def _segment(
        self, payload: bytes = b"", at: int = 0, *, flags: int = ACK, acked: int = 0
    ) -> Fed:
        rng = self.rng
        raw = b"\x01\x01\x08\x0a" + bytes(4) + self.echo if self.stamps else b""
        if rng.random() < 0.1:
            raw += b"\x01\x01\x05\x0a" + rng.randbytes(8)
        return self._built(flags, self.c + 1 + at, self.b + 1 + acked, raw, payload), 0

    def _built(self, flags: int, seq: int, ack: int, raw: bytes, payload: bytes) -> bytes:
        return build(
            self.address, self.vip, self.port, PORT, seq=seq & MASK, ack=ack & MASK, flags=flags,
            window=500, options=raw, payload=payload,
        )  # fmt: skip

    def _answer(self, kind: Kind, at: int) -> Fed:
        """A bridge's, under the right key; sometimes of another epoch, or about something else."""
        rng = self.rng
        seq = (self.c + 1 + at) & MASK
        message = handoff.Handoff(kind, 1460, 0, 7, 7, sack=True)
        rest = b""
        if kind is Kind.ENDED and rng.random() < 0.5:
            others = rng.sample(list(self.side.clients.values()), min(len(self.side.clients), 3))
            isns = (struct.pack("!II", other.c & MASK, other.b & MASK) for other in others)
            rest = handoff.encode_ended(zip((other.key for other in others), isns, strict=True))
            rest += rng.choice((b"", b"", b"?"))
        flow = self.side.core.table.find(self.key)
        bridge, attempt = b"", 0
        if kind is not Kind.ENDED and flow is not None and flow.target is not None:
            bridge, attempt = flow.target.steering.bridge, flow.attempt
        binding = handoff.Binding(self.key, self.c, self.b & MASK, seq, rest, bridge, attempt)
        epoch = self.side.epoch() + rng.choice((0, 0, 0, 0, 0, 1, -2, 5))
        option = handoff.encode(self.side.keys, message, binding, epoch)
        return self._built(ACK, seq, self.b + 1, option, rest), 0

    def _icmp(self) -> Fed:
        rng = self.rng
        quoted = build(
            self.vip, self.address, PORT, self.port, seq=(self.b + 1) & MASK, ack=self.c & MASK,
            flags=ACK, payload=bytes(100),
        )  # fmt: skip
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 1, 0, bytes((10, 0, 0, 1)), self.vip
        )
        kind = rng.choice((3, 3, 3, 11, 12, 8))
        icmp = struct.pack("!BBHHH", kind, 4, 0, 0, 1400)
        return repair(head + icmp + quoted[: rng.choice((27, 28, 40, 68))]), 0


class Again(Client):
    """A recorded connection, with another client's address and the cookie that is given now."""

    def __init__(self, side: BalancerSide, segments: list[Segment]) -> None:
        super().__init__(side)
        self._segments = segments

    def script(self) -> Iterator[Fed]:
        then = recorded.first_numbers(self._segments)
        for segment in self._segments:
            syn = bool(segment.flags & SYN)
            if syn:
                self.c, self.b = segment.seq, -1
            elif self.b < 0 or then is None:
                return
            ack = segment.ack if syn or then is None else (segment.ack - then[1] + self.b) & MASK
            binding = handoff.Binding(self.key, self.c, self.b & MASK, segment.seq)
            options = recorded.renewed(segment.options, self.side.keys, binding, self.side.epoch())
            packet = segment.rewritten(
                src=self.address, dst=self.vip, sport=self.port, ack=ack, options=options
            )
            yield repair(packet), 0
