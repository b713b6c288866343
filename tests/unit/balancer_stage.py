"""A stage for scripts with the balancer's core: a clock, a service, clients that speak TCP by hand.

Packets are built and read by scapy. Times are seconds since the stage was set.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Any

from balancer.core import config
from balancer.core.catalogue import built
from balancer.core.choice.maglev import key_hash
from balancer.core.engine import Balancer
from balancer.core.fast_path import FastPath
from balancer.core.service import Paths
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from tests.unit import models
from tests.unit.accounting import accounted
from tests.unit.scapy_oracle import checksums_ok, fields, tcp_packet

VIP = ("192.0.2.10", 80)
BRIDGES = ("203.0.113.20", "203.0.113.21", "203.0.113.22")
DSCP = 5
T0 = 5000.0  # monotonic
WALL = 1_700_000_000.0 - 1_700_000_000 % 128 + 3  # early in an even cookie epoch
REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Stage:
    """A balancer with one service. ``limits`` and ``timeouts`` change the configured ones."""

    def __init__(
        self,
        *,
        limits: dict[str, int] | None = None,
        timeouts: dict[str, float] | None = None,
        fast: FastPath | None = None,
        mtu: int = 1500,
        bridges: tuple[str, ...] = BRIDGES,
        pool: dict[str, Any] | None = None,
        routes: tuple[config.Route, ...] = (),
        **service: Any,
    ) -> None:
        backends = tuple(config.Backend(f"b{n}", bridge) for n, bridge in enumerate(bridges))
        chosen = config.Pool("p", backends, **{"table_size": 251} | (pool or {}))
        configured = config.Service("s", VIP[0], VIP[1], DSCP, "p", **service)
        times = config.Timeouts(**(timeouts or {}))
        self.whole = config.Config((configured,), pools=(chosen,), routes=routes, timeouts=times)
        self.paths = Paths(dict.fromkeys(BRIDGES, mtu), {VIP[0]: 1500})
        catalogue = built(self.whole, self.paths, T0)
        (self.service,) = catalogue.services.values()
        self.now = T0
        self.core = Balancer(
            catalogue,
            config.Limits(**(limits or {})),
            times,
            Keyring([derive(models.SHARED_KEY)]),
            Ledger(),
            T0,
            WALL - T0,
            fast,
        )

    def bridge_of(self, key: bytes) -> str:
        """Whose the flows of a key are while all are well."""
        member = self.core.pools["p"].choose(key_hash(key), bytes(4), self.now)
        assert member is not None
        return member.bridge

    @property
    def wall(self) -> float:
        return WALL + self.now - T0

    def at(self, seconds: float) -> None:
        """Let time pass, every timer in its turn."""
        while self.core.next_deadline() <= T0 + seconds:
            self.now = max(self.now, self.core.next_deadline())
            self.core.timers(self.now, WALL - T0)
        self.now = T0 + seconds

    def packet(self, data: bytes) -> bytes | None:
        """The verdict; every packet has one outcome, whatever the script."""
        before = accounted(self.core)
        verdict = self.core.packet(data, self.now)
        assert accounted(self.core) == before + 1
        return verdict

    def sent(self) -> list[bytes]:
        """What the balancer has sent of its own accord since last asked; all of it sound."""
        packets = [packet for _, packet in self.core.out]
        self.core.out.clear()
        assert all(map(checksums_ok, packets))
        return packets

    def reply(self) -> dict[str, Any]:
        """The fields of the only packet sent."""
        (packet,) = self.sent()
        return fields(packet)

    def sizes(self) -> dict[str, int]:
        """The gauges that are not 0."""
        return {name: size for name, size in self.core.gauges().items() if size}

    def count(self, name: str) -> int:
        return self.core.counts()[name]


class Client:
    """One connection: ``c`` and ``b`` are the initial sequence numbers, ``echo`` what the SYN-ACK's
    TSval was. Positions (``at``) are counted from the first byte after the SYN."""

    def __init__(
        self,
        stage: Stage,
        address: tuple[str, int] = ("198.51.100.7", 40000),
        *,
        c: int = 0xFFFFFFF0,
        mss: int = 1460,
        scale: int | None = 8,
        sack: bool = True,
        stamps: bool = True,
    ) -> None:
        self.stage, self.address, self.c = stage, address, c
        self.mss, self.scale, self.sack, self.stamps = mss, scale, sack, stamps
        self.b = self.echo = 0
        self.value = 7_000_000  # TSval

    def offer(self) -> bytes:
        """The options of the SYN."""
        raw = struct.pack("!BBH", 2, 4, self.mss)
        raw += b"\x01\x01\x04\x02" if self.sack else b""
        raw += models.stamps(self.value, 0) if self.stamps else b""
        return raw + (bytes([1, 3, 3, self.scale]) if self.scale is not None else b"")

    def syn(self, options: bytes | None = None, **changes: Any) -> bytes | None:
        """Send a SYN; the verdict."""
        raw = self.offer() if options is None else options
        packet = tcp_packet(
            self.address, VIP, **{"seq": self.c, "flags": "S", "options": raw} | changes
        )
        return self.stage.packet(packet)

    def shake(self) -> Client:
        """SYN and SYN-ACK; what the SYN-ACK said is kept. The ACK is not sent yet."""
        assert self.syn() is None
        answer = self.stage.reply()
        assert (answer["flags"], answer["ack"]) == ("SA", (self.c + 1) % 2**32)
        self.b = answer["seq"]
        self.echo = next((v[0] for k, v in answer["options"] if k == "Timestamp"), 0)
        return self

    def segment(
        self, payload: bytes = b"", at: int = 0, *, flags: str = "A", acked: int = 0, **changes: Any
    ) -> bytes:
        """A segment, ``acked`` bytes of the response acknowledged."""
        options = models.stamps(self.value, self.echo) if self.stamps else b""
        values = {
            "seq": self.c + 1 + at,
            "ack": self.b + 1 + acked,
            "flags": flags,
            "options": options,
            "payload": payload,
            "window": 501,
        }
        return tcp_packet(self.address, VIP, **values | changes)

    def send(self, payload: bytes = b"", at: int = 0, **changes: Any) -> bytes | None:
        """Send a segment; the verdict."""
        return self.stage.packet(self.segment(payload, at, **changes))

    def connect(self) -> Client:
        """The whole handshake."""
        self.shake()
        assert self.send() is None
        return self

    def option(self, kind: int, *, seq: int, rtt_code: int = 0, mss: int = 1460) -> bytes:
        """By the model: the handoff option of a message about this connection."""
        none = self.scale is None
        return models.handoff_option(
            kind,
            self.address,
            VIP,
            c=self.c,
            b=self.b,
            seq=seq,
            wall=self.stage.wall,
            mss=mss,
            rtt_code=rtt_code,
            scales=(15, 15) if none else (self.scale or 0, self.stage.service.window_scale),
            sack=self.sack,
        )

    def answer(self, kind: int, at: int = 0, **model: Any) -> bytes:
        """An answer of the flow's bridge, ``at`` the next byte it lacks."""
        seq = (self.c + 1 + at) % 2**32
        about = {"c": self.c, "b": self.b, "seq": seq, "wall": self.stage.wall}
        flow = self.stage.core.table.find(models.flow_bytes(self.address, VIP))
        if kind != models.ENDED and flow is not None and flow.target is not None:
            about["bridge"] = str(IPv4Address(flow.target.steering.bridge))
        option = models.handoff_option(kind, self.address, VIP, **about | model)
        frame = {"seq": seq, "ack": self.b + 1, "flags": "A", "options": option, "window": 0}
        return tcp_packet(self.address, VIP, **frame, payload=model.get("rest", b""))


def handoff_of(packet: bytes | None) -> bytes:
    """The handoff option of a steered packet, whose frame is checked."""
    assert packet is not None
    assert checksums_ok(packet)
    seen = fields(packet)
    assert seen["dst"] in BRIDGES
    assert seen["dscp"] == DSCP
    raw: bytes = seen["raw_options"]
    assert raw[:4] == b"\xfd\x10\x4c\x33", "the handoff option stands first"
    return raw[:16]
