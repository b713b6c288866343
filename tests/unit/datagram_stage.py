"""A stage for scripts with the balancer's core and a UDP service: a clock, clients, backends.

Packets are built and read by scapy. Times are seconds since the stage was set.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from scapy.layers.inet import IP, UDP

from balancer.core import config
from balancer.core.catalogue import built
from balancer.core.engine import Balancer
from balancer.core.fast_path import FastPath
from balancer.core.service import Paths
from common.core.datagram import build
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from tests.unit import models
from tests.unit.accounting import accounted
from tests.unit.scapy_oracle import checksums_ok, udp_packet

VIP = ("192.0.2.10", 53)
BRIDGES = ("203.0.113.20", "203.0.113.21", "203.0.113.22")
DSCP = 5
CLIENT = ("198.51.100.7", 40000)
T0, WALL = 5000.0, 1_700_000_000.0


def client(number: int, port: int = 40000) -> tuple[str, int]:
    """One of many."""
    return f"198.51.{number >> 8 & 255}.{number & 255}", port


def configuration(
    *,
    bridges: tuple[str, ...] = BRIDGES,
    pool: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    timeouts: dict[str, float] | None = None,
    **service: Any,
) -> config.Config:
    backends = tuple(config.Backend(f"b{BRIDGES.index(at)}", at) for at in bridges)
    check = config.Check(rise=1, fall=1)
    chosen = config.Pool("p", backends, **{"table_size": 251, "check": check} | (pool or {}))
    values = {"protocol": "udp", "inspect": "none", "dscp": DSCP, "port": VIP[1]} | service
    one = config.Service("s", VIP[0], pool="p", **values)
    return config.Config(
        (one,),
        pools=(chosen,),
        limits=config.Limits(**(limits or {})),
        timeouts=config.Timeouts(**(timeouts or {})),
    )


class Stage:
    def __init__(self, *, fast: FastPath | None = None, **configured: Any) -> None:
        self.whole = configuration(**configured)
        self.paths = Paths(dict.fromkeys(BRIDGES, 1500), {VIP[0]: 1500})
        self.now = T0
        self.core = Balancer(
            built(self.whole, self.paths, T0),
            self.whole.limits,
            self.whole.timeouts,
            Keyring([derive(models.SHARED_KEY)]),
            Ledger(),
            T0,
            WALL - T0,
            fast,
        )
        self.table = self.core.datagrams.table

    def at(self, seconds: float) -> None:
        """Let time pass, every timer in its turn."""
        while self.core.next_deadline() <= T0 + seconds:
            self.now = max(self.now, self.core.next_deadline())
            self.core.timers(self.now, WALL - T0)
        self.now = T0 + seconds

    def settle(self) -> None:
        """Let what is to be done in parts be done."""
        self.at(self.now - T0)
        self.core.settle()

    def packet(self, data: bytes) -> bytes | None:
        """The verdict; every packet has one outcome, whatever the script."""
        before = accounted(self.core)
        verdict = self.core.packet(data, self.now)
        assert accounted(self.core) == before + 1
        return verdict

    def send(
        self, source: tuple[str, int] = CLIENT, payload: bytes = b"question", **changes: Any
    ) -> str | None:
        """A datagram to the service: the bridge that it was steered to, all else of it looked at;
        None where it was dropped."""
        tos = changes.pop("tos", 0)
        verdict = self.packet(udp_packet(source, VIP, payload, tos=tos, **changes))
        if verdict is None:
            return None
        bridge: str = IP(verdict).dst
        there = (bridge, self.whole.services[0].port)
        dscp = self.core.datagram_services[0].dscp
        steered = udp_packet(source, there, payload, tos=dscp << 2 | tos & 3, **changes)
        assert verdict == steered
        assert checksums_ok(verdict)
        assert IP(verdict)[UDP].sport == source[1]
        return bridge

    def quick(self, source: tuple[str, int] = CLIENT) -> str | None:
        """The same for many: only the bridge is looked at."""
        src, dst = (IPv4Address(address).packed for address in (source[0], VIP[0]))
        verdict = self.core.packet(build(src, dst, source[1], VIP[1], b"question"), self.now)
        return None if verdict is None else str(IPv4Address(verdict[16:20]))

    def check(self, name: str, *, well: bool) -> None:
        """A check of a backend has gone so."""
        self.core.health.checked("p", name, well, "" if well else "refused", self.now)

    def reload(self, **configured: Any) -> None:
        self.whole = configuration(**configured)
        said: list[str] = []
        self.core.reconfigure(self.whole, self.paths, self.now, said.append)
        self.settle()
        assert said == [""]

    def pending(self) -> dict[str, int]:
        """Of each backend, what it has in progress."""
        return {member.name: member.pending for member in self.core.pools["p"].members}

    def count(self, name: str) -> int:
        return self.core.counts()[name]
