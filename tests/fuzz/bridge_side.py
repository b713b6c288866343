"""Clients, balancer and server of a bridge: honest ones, whose packets the world then changes."""

from __future__ import annotations

import random
import socket
import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from common.core import datagram, handoff
from common.core.datagram import UDP
from common.core.handoff import Kind
from common.core.keys import Keyring
from common.core.ledger import Ledger
from common.core.segment import ACK, FIN, PSH, RST, SYN, Segment, build, reverse
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.flow_table import REMEMBER_CLOSED
from tests.fuzz import recorded
from tests.fuzz.bridge_operator import MARK, BridgeOperator, Ways
from tests.fuzz.invariants import bridge_adds_up
from tests.fuzz.kernels import Reporting
from tests.fuzz.mutations import repair, tcp_valid, udp_valid
from tests.fuzz.noise import Ends, Noise
from tests.fuzz.place import PORT, Place
from tests.fuzz.requests import pieces, request
from tests.fuzz.world import Fed

MASK = 0xFFFFFFFF
LIMITS = {"mappings": 20, "flows": 120, "held_bytes": 65536, "closed": 100}
UNBOUNDED = 100_000  # closed flows: then none is forgotten before its time
VARIANTS: tuple[tuple[dict[str, int], dict[str, Any], dict[str, bool]], ...] = (
    ({}, {}, {"local": True, "bbr": False}),
    (LIMITS, {"source": "bridge", "ports": (40000, 40199)}, {"local": False, "bbr": True}),
    (
        {**LIMITS, "flows": 30},
        {"hold_handshake": "on"},
        {"local": False, "bbr": False},
    ),
    (
        {**LIMITS, "flows": 400},
        {"source": "bridge", "ports": (40000, 40059)},
        {"local": True, "bbr": True},
    ),
    ({**LIMITS, "flows": 60}, {"handoff": False}, {"local": True, "bbr": False}),
    (
        LIMITS,
        {"handoff": False, "source": "bridge", "ports": (40000, 40029)},
        {"local": False, "bbr": False},
    ),
)


class BridgeSide:
    """A bridge with one backend for all VIPs; ``variant`` is an index into VARIANTS."""

    def __init__(self, rng: random.Random, variant: int, place: Place) -> None:
        limits, backend, host = VARIANTS[variant]
        configured = config.Backend(place.bridges[0], PORT, *place.server, **backend)
        ways = Ways(rng, place, configured, host)
        entries = ways.first()
        self.rng, self.place = rng, place
        self._handoff = configured.handoff
        self.address = socket.inet_aton(place.bridges[0])
        self.server = socket.inet_aton(place.server[0])
        self.keys = place.keys
        self.limits = config.Limits(**limits)
        kernel = Reporting(rng) if variant % 2 else None
        self.core = Bridge(
            entries,
            self.limits,
            config.Timeouts(),
            Keyring([self.keys]),
            Ledger(verbose=True),  # packets reach what is logged, too
            place.now,
            place.wall_offset,
            kernel,
        )
        if kernel is not None:
            kernel.core = self.core
        self.clients: dict[bytes, Client] = {}
        self._recorded = recorded.connections("packetbridge")
        self._operator = BridgeOperator(rng, self.core, ways, self.limits)
        self.to_say: deque[Fed] = deque()
        self._given_back: OrderedDict[tuple[bytes, ...], float] = OrderedDict()

    def epoch(self) -> int:
        return handoff.epoch_at(self.core._context.wall)

    def noise(self) -> Noise:
        place = self.place
        client, bridge = f"{place.clients}.{place.hosts[0]}", place.bridges[0]
        ends: list[Ends] = [
            (client, bridge, None, PORT),
            (client, bridge, None, None),
            (place.server[0], client, place.server[1], None),
        ]
        return Noise(self.rng, ends)

    def begin(self) -> Client | Asker:
        if self.rng.random() < 0.15:
            return Asker(self)
        client = Client(self)
        if not self._handoff and self.rng.random() < 0.9:
            client = Unread(self)
        elif self.rng.random() < 0.4:
            client = Again(self, self.rng.choice(self._recorded))
        self.clients[client.key] = client
        return client

    def deliver(self, packet: bytes, sound: bool) -> None:
        if packet[9] == UDP:
            assert udp_valid(packet) or not sound, packet.hex()
            return
        # packets that pass on their way may be sent by it as well: as right as they came
        assert tcp_valid(packet) or not sound, packet.hex()
        segment = Segment(packet)
        if segment.dst != self.server:
            self._heard(segment)
            return
        flow = self.core.table.outbound.get(reverse(segment.key))
        client = None if flow is None else self.clients.get(flow.inbound)
        if client is not None and segment.flags & (SYN | ACK) == SYN:
            client.asked(segment)

    def _heard(self, segment: Segment) -> None:
        """The balancer, or a client: of what was given back nothing is served any more."""
        option = handoff.find(segment.options)
        if option is not None and handoff.decode(option).kind is Kind.REFUSED:
            for number in range(handoff.ATTEMPTS):
                c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
                about = segment.key, c, b, segment.seq, segment.payload, self.address, number
                if handoff.authentic(
                    self.keys, option, handoff.Binding(*about), self.core._context.wall
                ):
                    isns = struct.pack("!II", c, b)
                    # from the first time on: said again, it is remembered no longer for that
                    given = segment.key, isns, bytes((number,))
                    self._given_back.setdefault(given, self._now())
                    return
            raise AssertionError("an answer under another key")

    def passed(self, packet: bytes) -> None:
        pass

    def feeding(self, packet: bytes) -> None:
        pass

    def operate(self, now: float) -> None:
        self._operator.act(now)

    def holds(self) -> None:
        bridge_adds_up(self.core, self._operator.known)
        if self.limits.closed < UNBOUNDED:
            return
        given = self._given_back
        while given and next(iter(given.values())) < self._now() - REMEMBER_CLOSED:
            given.popitem(last=False)
        for flow in self.core.table.outbound.values():
            if not flow.entry.handoff:
                continue  # a SYN that was given back may be asked again
            key = flow.inbound[:4] + flow.entry.vip + flow.inbound[8:]
            assert (key, flow.isns, bytes((flow.attempt,))) not in given

    def _now(self) -> float:
        return self.core._context.wall

    def is_empty(self) -> bool:
        table = self.core.table
        empty = not len(table) and not any(table.inbound) and not table.held_bytes
        return empty and not len(self.core.datagrams.mappings)

    def bounds(self) -> dict[str, int]:
        # one flow's segment more than the bound may be held
        return {
            "flows": self.limits.flows,
            "held_bytes": self.limits.held_bytes + 5000,
            "mappings": self.limits.mappings,
        }


class Client:
    """One client's connection by way of the balancer, and the server's side of it."""

    def __init__(self, side: BridgeSide) -> None:
        rng = side.rng
        self.side, self.rng = side, rng
        self.dscp, self.vip = side.place.vip(rng)
        self.address, self.port = side.place.client(rng)
        self.key = self.address + side.address + struct.pack("!HH", self.port, PORT)
        self.c, self.b, self.r = (rng.getrandbits(32) for _ in range(3))
        self.stamps = rng.random() < 0.8
        self.server_stamps = self.stamps and rng.random() < 0.7
        self.at = self.sent = 0  # bytes of client and server so far
        self.syn: Segment | None = None  # as the server got it

    def asked(self, syn: Segment) -> None:
        self.syn = syn

    def script(self) -> Iterator[Fed]:
        rng = self.rng
        data = request(rng)
        confirm = rng.random() < 0.25
        parts = sorted(pieces(rng, data)) if confirm else pieces(rng, data)[:10]
        self.at = len(data)
        if rng.random() < 0.1:
            yield self._segment(data[:9], 100)  # overtakes its handoff
        end = FIN if rng.random() < 0.1 else 0
        for at, part in parts[:12]:
            if at == 0 or confirm:
                kind = Kind.HANDOFF_CONFIRM if confirm else Kind.HANDOFF
                yield self._handoff(kind, part, at, flags=ACK | PSH | end)
            else:
                yield self._segment(part, at, flags=ACK | PSH)
        if rng.random() < 0.2:
            yield self._segment(b"", self.at)
        draw = rng.random()
        if draw < 0.05:
            yield self._segment(b"", rng.choice((0, self.at)), flags=RST)
        if self.syn is None:
            yield self._server(b"", flags=ACK)
            return
        if draw < 0.12:
            return  # the server is silent
        if draw < 0.2:
            yield self._server(b"", flags=RST | ACK, at=-1)
            return
        if draw < 0.25:
            yield self._server(b"", flags=ACK, at=rng.getrandbits(20), acked=77)  # TIME-WAIT
        for _ in range(rng.choice((1, 1, 1, 2))):
            yield self._syn_ack()
        if draw > 0.3:
            yield self._server(b"", acked=self.at)
        yield from self._spliced()
        yield from self._end()

    def _spliced(self) -> Iterator[Fed]:
        rng = self.rng
        for _ in range(rng.choice((1, 5, 20, 60))):
            if self.key not in self.side.core.table.inbound[self.dscp] and rng.random() < 0.5:
                return
            draw = rng.random()
            if draw < 0.45:
                part = bytes(rng.choice((1, 100, 1400)))
                yield self._server(part, at=self.sent, acked=self.at)
                self.sent += len(part)
            elif draw < 0.80:
                yield self._segment(b"", self.at, acked=self.sent)
            elif draw < 0.86:
                part = bytes(rng.choice((1, 100, 1400)))
                yield self._segment(part, self.at, acked=self.sent)
                self.at += len(part)
                yield self._server(b"", at=self.sent, acked=self.at)
            elif draw < 0.89:
                yield self._handoff(rng.choice((Kind.HANDOFF, Kind.HANDOFF_CONFIRM)), b"GET /", 0)
            elif draw < 0.92:
                yield self._icmp()
            elif draw < 0.94:
                yield self._syn_ack()
            elif draw < 0.96:
                yield self._segment(b"", self.at + rng.choice((0, 1)), flags=RST)
            elif draw < 0.98:
                yield self._server(b"", mark=0, acked=self.at)  # a direct connection's
            else:
                yield self._handoff(rng.choice(list(Kind)), b"", rng.choice((0, 0, 5)))

    def _end(self) -> Iterator[Fed]:
        rng = self.rng
        draw = rng.random()
        if draw < 0.5:
            yield self._server(b"", flags=FIN | ACK, at=self.sent, acked=self.at)
            yield self._segment(b"", self.at, flags=FIN | ACK, acked=self.sent + 1)
            yield self._server(b"", at=self.sent + 1, acked=self.at + 1)
        elif draw < 0.7:
            yield self._segment(b"", self.at, flags=FIN | ACK, acked=self.sent)
            yield self._server(
                b"", flags=FIN | ACK, at=self.sent, acked=self.at + rng.choice((1, 2))
            )
            yield self._segment(b"", self.at + 1, acked=self.sent + 1)
        elif draw < 0.8:
            yield self._segment(b"", self.at, flags=RST)
            yield self._segment(b"", self.at, acked=self.sent)
        elif draw < 0.9:
            yield self._server(b"", flags=RST | ACK, at=self.sent, acked=self.at)
            yield self._server(b"", at=self.sent, acked=self.at)
        elif draw < 0.95:
            yield self._handoff(Kind.FORGET, b"", 0)
        for _ in range(rng.choice((0, 0, 1, 4))):
            yield self._server(
                b"late", at=self.sent, acked=self.at, flags=rng.choice((ACK, SYN | ACK))
            )
            yield self._segment(b"late", self.at)
        if rng.random() < 0.2:
            yield self._handoff(Kind.HANDOFF, b"GET / HTTP/1.1\r\n\r\n", 0)

    def _segment(
        self, payload: bytes, at: int, *, flags: int = ACK, acked: int = 0, raw: bytes = b""
    ) -> Fed:
        """From the client, steered."""
        rng = self.rng
        if self.stamps:
            raw += b"\x01\x01\x08\x0a" + rng.randbytes(2) + bytes(6)
        if rng.random() < 0.1 and len(raw) <= 28:
            raw += b"\x01\x01\x05\x0a" + rng.randbytes(8)
        packet = build(
            self.address, self.side.address, self.port, PORT, seq=(self.c + 1 + at) & MASK,
            ack=(self.b + 1 + acked) & MASK, flags=flags, window=500, options=raw,
            payload=payload, tos=self.dscp << 2,
        )  # fmt: skip
        return packet, 0

    def _handoff(self, kind: Kind, payload: bytes, at: int, flags: int = ACK | PSH) -> Fed:
        rng = self.rng
        plain = rng.random() < 0.9
        message = handoff.Handoff(
            kind=kind,
            mss=1460 if plain else rng.choice((0, 8, 536)),
            rtt=rng.choice((0, 0, 20, 250)),
            client_scale=7 if plain else rng.choice((0, 14, 15)),
            promised_scale=7 if plain else rng.choice((0, 14, 15)),
            sack=plain,
        )
        key = self.address + self.vip + self.key[8:]
        attempt = rng.choice((0,) * 12 + (1, 2, 3, 4))
        seq = (self.c + 1 + at) & MASK
        binding = handoff.Binding(key, self.c, self.b, seq, attempt=attempt)
        epoch = self.side.epoch() + rng.choice((0,) * 12 + (1, -2, 5))
        raw = handoff.encode(self.side.keys, message, binding, epoch)
        return self._segment(payload, at, flags=flags, raw=raw)

    def _syn_ack(self) -> Fed:
        raw = b"\x02\x04\x05\xb4\x04\x02"
        raw += b"\x08\x0a" + bytes(4) + bytes(4) if self.server_stamps else b"\x01\x01"
        raw += b"\x01\x03\x03\x09" if self.rng.random() < 0.8 else b""
        return self._server(b"", flags=SYN | ACK, at=-1, raw=raw)

    def _server(
        self, payload: bytes, *, flags: int = ACK, at: int = 0, acked: int = 0,
        raw: bytes | None = None, mark: int | None = None,
    ) -> Fed:  # fmt: skip
        side, source, port, isn = self.side, self.address, self.port, self.c
        at_port = side.place.server[1]
        if self.syn is not None:
            source, port, isn = self.syn.src, self.syn.sport, self.syn.seq
            at_port = self.syn.dport
        if raw is None:
            raw = b"\x01\x01\x08\x0a" + bytes(8) if self.server_stamps else b""
        packet = build(
            side.server, source, at_port, port, seq=(self.r + 1 + at) & MASK,
            ack=(isn + 1 + acked) & MASK, flags=flags, window=1000, options=raw, payload=payload,
        )  # fmt: skip
        return packet, MARK | self.dscp if mark is None else mark

    def _icmp(self) -> Fed:
        rng = self.rng
        quoted = build(
            self.vip, self.address, PORT, self.port, seq=(self.b + 1) & MASK, ack=self.c, flags=ACK,
            payload=bytes(100),
        )  # fmt: skip
        addresses = bytes((10, 0, 0, 1)) + self.side.address
        head = struct.pack("!BBHHHBBH8s", 0x45, self.dscp << 2, 0, 0, 0, 64, 1, 0, addresses)
        kind, mtu = rng.choice((3, 3, 3, 11, 12, 8)), rng.choice((0, 1400))
        icmp = struct.pack("!BBHHH", kind, 4, 0, 0, mtu)
        return repair(head + icmp + quoted[: rng.choice((27, 28, 40, 68))]), 0


class Unread(Client):
    """One whose handshake is the server's own, or that was there before the program."""

    def script(self) -> Iterator[Fed]:
        rng = self.rng
        self.b = self.r
        began = rng.random() < 0.8
        for _ in range(rng.choice((1, 1, 2)) if began else 0):
            yield self._syn()
        draw = rng.random()
        if draw < 0.15:
            return  # the server is silent
        if draw < 0.25:
            yield self._server(b"", flags=RST | ACK, at=-1)
            return
        for _ in range(rng.choice((1, 1, 2)) if began else 0):
            yield self._syn_ack()
        if draw < 0.35:
            yield self._syn()  # the answer was lost
        if draw < 0.9:
            yield self._segment(b"", 0)
        yield from self._spliced()
        if draw < 0.4:
            yield self._syn()
        yield from self._end()
        if rng.random() < 0.3:
            self.c = rng.getrandbits(32)
            yield self._syn()

    def _syn(self) -> Fed:
        rng = self.rng
        raw = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + rng.randbytes(8)
        flags = SYN | (0 if rng.random() < 0.9 else rng.choice((0xC0, 8, FIN, RST, ACK)))
        packet = build(
            self.address, self.side.address, self.port, PORT, seq=self.c, ack=0, flags=flags,
            window=64240, options=raw, tos=self.dscp << 2,
        )  # fmt: skip
        return packet, 0

    def _handoff(self, kind: Kind, payload: bytes, at: int, flags: int = ACK | PSH) -> Fed:
        server, self.b = self.b, self.rng.choice((0, self.b))
        fed = super()._handoff(kind, payload, at, flags)
        self.b = server
        return fed


class Again(Client):
    """A recorded connection, with another client's address and a handoff for that."""

    def __init__(self, side: BridgeSide, segments: list[Segment]) -> None:
        super().__init__(side)
        self._segments = segments
        self.c, self.b = recorded.first_numbers(segments) or (0, 0)

    def script(self) -> Iterator[Fed]:
        vip_key = self.address + self.vip + self.key[8:]
        for segment in self._segments:
            if self.key not in self.side.core.table.inbound[self.dscp] and self.rng.random() < 0.1:
                return
            if segment.src != recorded.SERVER:
                binding = handoff.Binding(vip_key, self.c, self.b, segment.seq)
                keys, epoch = self.side.keys, self.side.epoch()
                packet = segment.rewritten(
                    src=self.address, dst=self.side.address, sport=self.port, tos=self.dscp << 2,
                    options=recorded.renewed(segment.options, keys, binding, epoch),
                )  # fmt: skip
                yield repair(packet), 0
            elif self.syn is not None:
                packet = segment.rewritten(
                    src=self.side.server, dst=self.syn.src,
                    sport=self.side.place.server[1], dport=self.syn.sport,
                    ack=(segment.ack + self.syn.seq - self.c) & MASK,
                )  # fmt: skip
                yield repair(packet), MARK | self.dscp


class Asker:
    """A client of UDP, by way of the balancer, and the server's side of it."""

    def __init__(self, side: BridgeSide) -> None:
        rng = side.rng
        self.side, self.rng = side, rng
        self.dscp, self.vip = side.place.vip(rng)
        self.address, self.port = side.place.client(rng)
        if rng.random() < 0.5:  # one whom another VIP may know as well
            self.port = rng.choice((40000, 40001))
            self.address = self.address[:3] + b"\7"

    def script(self) -> Iterator[Fed]:
        rng = self.rng
        for _ in range(rng.choice((1, 1, 2, 10))):
            yield self._query(), 0
            source = self._source()
            for _ in range(rng.choice((0, 1, 1, 3))):
                yield self._answer(source), 0
            draw = rng.random()
            if draw < 0.2:
                yield self._error_of_server(source), 0
            elif draw < 0.4:
                yield self._error_of_client(), 0

    def _query(self) -> bytes:
        rng = self.rng
        packet = datagram.build(
            self.address, self.side.address, self.port, PORT, rng.randbytes(rng.choice((0, 9, 99))),
            tos=self.dscp << 2 | rng.choice((0, 1, 3)), ttl=rng.choice((64, 64, 1, 0)),
            checked=rng.random() < 0.8,
        )  # fmt: skip
        return packet if rng.random() < 0.9 else _with_options(packet)

    def _source(self) -> bytes:
        """Whom the server sees; who has no mapping is seen as it is."""
        for mapping in self.side.core.datagrams.every(self.side.core._context.wall - self._offset):
            if mapping.inbound[:4] + mapping.inbound[8:10] == self._own:
                return mapping.outbound[4:8] + mapping.outbound[10:]
        return self._own

    @property
    def _offset(self) -> float:
        return self.side.core._wall_offset

    @property
    def _own(self) -> bytes:
        return self.address + self.port.to_bytes(2, "big")

    def _answer(self, source: bytes) -> bytes:
        rng, port = self.rng, int.from_bytes(source[4:], "big")
        packet = datagram.build(
            self.side.server, source[:4], self.side.place.server[1], port,
            rng.randbytes(rng.choice((0, 9, 999))), checked=rng.random() < 0.8,
        )  # fmt: skip
        return packet if rng.random() < 0.9 else _with_options(packet)

    def _error_of_server(self, source: bytes) -> bytes:
        port, at = int.from_bytes(source[4:], "big"), self.side.place.server[1]
        about = datagram.build(source[:4], self.side.server, port, at, bytes(99))
        return self._error(about, self.side.server + source[:4], 0)

    def _error_of_client(self) -> bytes:
        about = datagram.build(self.vip, self.address, PORT, self.port, bytes(99))
        return self._error(about, bytes((10, 0, 0, 1)) + self.side.address, self.dscp << 2)

    def _error(self, about: bytes, ends: bytes, tos: int) -> bytes:
        rng = self.rng
        head = struct.pack("!BBHHHBBH8s", 0x45, tos, 0, 0, 0, 64, 1, 0, ends)
        icmp = struct.pack("!BBHHH", rng.choice((3, 3, 11, 8)), rng.choice((1, 3, 4)), 0, 0, 0)
        return repair(head + icmp + about[: rng.choice((24, 28, 128))])


def _with_options(packet: bytes) -> bytes:
    return repair(b"\x46" + packet[1:20] + b"\x94\x04\0\0" + packet[20:])
