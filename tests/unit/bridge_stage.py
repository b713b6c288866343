"""A stage for scripts with the bridge's core: a clock, a backend or more, and connections whose
client and server both speak TCP by hand.

Packets are built and read by scapy. Times are seconds since the stage was set.
"""

from __future__ import annotations

from typing import Any

from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import FastPath
from packetbridge.core.flow import Flow
from tests.unit import models
from tests.unit.accounting import accounted
from tests.unit.scapy_oracle import checksums_ok, fields, raw_options, tcp_packet

VIPS = {5: "192.0.2.10", 6: "192.0.2.11"}
ADDRESS = ("203.0.113.20", 80)  # the bridge's
SERVER = ("203.0.113.30", 8080)
MARK = 0x4C330000
T0 = 5000.0  # monotonic
WALL = 1_700_000_000.0 + 3
REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Stage:
    """A bridge with one backend, for both VIPs. ``backend`` changes its configuration."""

    def __init__(
        self,
        *,
        limits: dict[str, int] | None = None,
        timeouts: dict[str, float] | None = None,
        fast: FastPath | None = None,
        local: bool = True,
        bbr: bool = False,
        **backend: Any,
    ) -> None:
        configured = config.Backend(*ADDRESS, *SERVER, **backend)
        self.entries = [
            Entry(configured, dscp, vip, MARK, local, bbr) for dscp, vip in VIPS.items()
        ]
        self.now = T0
        self.core = Bridge(
            self.entries,
            config.Limits(**(limits or {})),
            config.Timeouts(**(timeouts or {})),
            Keyring([derive(models.SHARED_KEY)]),
            Ledger(),
            T0,
            WALL - T0,
            fast,
        )

    @property
    def wall(self) -> float:
        return WALL + self.now - T0

    def at(self, seconds: float) -> None:
        """Let time pass, every timer in its turn."""
        while self.core.next_deadline() <= T0 + seconds:
            self.now = max(self.now, self.core.next_deadline())
            self.core.timers(self.now, WALL - T0)
        self.now = T0 + seconds

    def packet(self, data: bytes, mark: int = 0) -> bytes | None:
        """The verdict; every packet has one outcome, whatever the script."""
        before = accounted(self.core)
        verdict = self.core.packet(data, self.now, mark)
        assert accounted(self.core) == before + 1
        return verdict

    def sent(self) -> list[dict[str, Any]]:
        """Fields of what the bridge has sent of its own accord since last asked; all of it sound,
        and marked so that the firewall knows it for the bridge's."""
        self.core.settle()
        marked = list(self.core.out)
        self.core.out.clear()
        assert all(checksums_ok(packet) for _, packet in marked)
        assert {mark & ~63 for mark, _ in marked} <= {MARK}
        return [fields(packet) for _, packet in marked]

    def reply(self) -> dict[str, Any]:
        """The fields of the only packet sent."""
        (packet,) = self.sent()
        return packet

    def count(self, name: str) -> int:
        return self.core.counts()[name]

    def flow(self) -> Flow:
        """The only flow."""
        (flow,) = self.core.table.outbound.values()
        return flow


class Connection:
    """One client connection: initial numbers c (client), b (balancer), r (server), isn (what the
    server saw as the client's); ``value`` and ``echo`` the client's TSval and the balancer's."""

    def __init__(
        self,
        stage: Stage,
        client: tuple[str, int] = ("198.51.100.7", 40000),
        *,
        dscp: int = 5,
        c: int = 0xFFFFFFF0,
        b: int = 0x10000000,
        mss: int = 1460,
        scales: tuple[int, int] = (8, 7),
        sack: bool = True,
        stamps: bool = True,
        rtt_code: int = 0,
    ) -> None:
        self.stage, self.client, self.dscp = stage, client, dscp
        self.c, self.b, self.r, self.isn = c, b, 0xFFFFFF00, c
        self.mss, self.scales, self.sack, self.stamps = mss, scales, sack, stamps
        self.rtt_code = rtt_code
        self.value, self.echo = 7_000_000, 0xFFFFFF80
        self.server_value = 123_456  # the server's TSval in its SYN-ACK
        self.source = client  # what the server saw

    # --- from the client, by way of the balancer ---

    @property
    def vip(self) -> tuple[str, int]:
        return VIPS[self.dscp], ADDRESS[1]

    def option(self, kind: int, at: int = 0, **changes: Any) -> bytes:
        """By the model: the handoff option of a segment that begins ``at`` bytes behind the SYN."""
        values = {
            "c": self.c,
            "b": self.b,
            "seq": self.c + 1 + at,
            "wall": self.stage.wall,
            "mss": self.mss,
            "rtt_code": self.rtt_code,
            "scales": self.scales,
            "sack": self.sack,
        }
        return models.handoff_option(kind, self.client, self.vip, **values | changes)

    def answer(self, kind: int, payload: bytes = b"", at: int = 0, **changes: Any) -> bytes:
        """By the model: the option of the bridge's answer to the handoff."""
        about = {"mss": 0, "rtt_code": 0, "scales": (15, 15), "sack": False}
        return self.option(kind, at, **{"rest": payload, "bridge": ADDRESS[0]} | about | changes)

    def segment(
        self, payload: bytes = b"", at: int = 0, *, flags: str = "A", acked: int = 0, **changes: Any
    ) -> bytes:
        """A steered segment of the client, ``acked`` bytes of the response acknowledged."""
        stamps = models.stamps(self.value, self.echo) if self.stamps else b""
        values = {
            "seq": self.c + 1 + at,
            "ack": self.b + 1 + acked,
            "flags": flags,
            "options": stamps,
            "payload": payload,
            "window": 501,
            "tos": self.dscp << 2,
        }
        return tcp_packet(self.client, ADDRESS, **values | changes)

    def send(self, payload: bytes = b"", at: int = 0, **changes: Any) -> bytes | None:
        return self.stage.packet(self.segment(payload, at, **changes))

    def forwarded(self, payload: bytes = b"", at: int = 0, **changes: Any) -> bytes:
        """Send a segment before the server has acknowledged anything: what the bridge sends on."""
        assert not self.stage.core.out
        assert self.send(payload, at, **changes) is None
        ((mark, packet),) = self.stage.core.out
        assert mark == MARK | self.dscp, "the socket that it may make is known by its mark"
        self.stage.sent()
        return packet

    def handoff(
        self,
        payload: bytes = REQUEST,
        at: int = 0,
        *,
        kind: int = models.HANDOFF,
        option: dict[str, Any] | None = None,
        **changes: Any,
    ) -> bytes | None:
        """Send a segment with the handoff option; ``option`` changes what the model binds."""
        raw = self.option(kind, at, **(option or {}))
        raw += models.stamps(self.value, self.echo) if self.stamps else b""
        return self.send(payload, at, **{"options": raw} | changes)

    # --- from the server ---

    def from_server(
        self, payload: bytes = b"", at: int = 0, *, flags: str = "A", acked: int = 0, **changes: Any
    ) -> bytes | None:
        """A segment of the server, ``at`` bytes behind its SYN; the verdict."""
        stamps = models.stamps(self.server_value, self.value) if self.stamps else b""
        mark = changes.pop("mark", MARK | self.dscp)
        values = {
            "seq": self.r + 1 + at,
            "ack": self.isn + 1 + acked,
            "flags": flags,
            "options": stamps,
            "payload": payload,
            "window": 1000,
        }
        return self.stage.packet(tcp_packet(SERVER, self.source, **values | changes), mark)

    def syn_ack(
        self,
        *,
        scale: int | None = 9,
        sack: bool = True,
        stamps: bool = True,
        **changes: Any,
    ) -> None:
        """The server's SYN-ACK. ``isn`` is taken from nothing: say it first."""
        offer: list[tuple[str, Any]] = [("MSS", 1460)]
        offer += [("SAckOK", b"")] if sack else []
        offer += [("Timestamp", (self.server_value, self.value))] if stamps else []
        offer += [("NOP", None), ("WScale", scale)] if scale is not None else []
        values = {"options": raw_options(offer), "ack": self.isn + 1, "window": 65000}
        assert self.from_server(b"", -1, flags="SA", **values | changes) is None

    # --- both ---

    def asked(self, **handoff: Any) -> dict[str, Any]:
        """Hand over; the SYN that the server gets, whose source and ISN are kept."""
        self.stage.sent()
        assert self.handoff(**handoff) is None
        syn = self.stage.reply()
        assert syn["flags"] == "S"
        self.isn, self.source = syn["seq"], (syn["src"], syn["sport"])
        return syn

    def open(self, **handoff: Any) -> Connection:
        """Hand over, connect, and have the server acknowledge the request."""
        self.asked(**handoff)
        self.syn_ack(stamps=self.stamps)
        held = self.stage.sent()
        end = sum(len(packet["payload"]) for packet in held)
        assert self.from_server(acked=end) is not None
        self.stage.sent()
        return self
