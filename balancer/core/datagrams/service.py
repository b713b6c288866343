"""A UDP service at run time: who may serve its clients, and what they are known by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from balancer.core import config as settings
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.datagrams.steering import DatagramSteering

ANY_PORT = bytes(2)  # in the key of a mapping that all of a client's ports share


class DatagramTarget(NamedTuple):
    """A pool's member as one service's datagrams reach it."""

    member: Member
    pool: Pool
    steering: DatagramSteering

    @property
    def name(self) -> str:
        return self.member.name


class DatagramService:
    """What the datagrams' code needs of one configured service. ``per_flow``: each port of a client
    has a mapping of its own (key `source-port`); else all of them share one. Seconds.
    """

    __slots__ = ("_targets", "dscp", "idle_timeout", "name", "per_flow", "pool", "port", "vip")

    def __init__(
        self, configured: settings.Service, pool: Pool, timeouts: settings.Timeouts
    ) -> None:
        self.name = configured.name
        self.vip = IPv4Address(configured.vip).packed
        self.port = configured.port
        self.dscp = configured.dscp
        self.pool = pool
        self.per_flow = "source-port" in pool.configured.key
        self.idle_timeout = configured.idle_timeout or timeouts.udp
        self._targets: dict[Member, DatagramTarget] = {}

    @property
    def endpoint(self) -> bytes:
        """6 bytes: the VIP and the port."""
        return self.vip + self.port.to_bytes(2, "big")

    def key(self, key: bytes) -> bytes:
        """The mapping's key for a datagram's, both 12 bytes."""
        return key if self.per_flow else key[:8] + ANY_PORT + key[10:]

    def chosen_by(self, key: bytes) -> bytes:
        """What of a datagram's 12-byte key its backend is chosen by: the client's address, and,
        where each flow is on its own, its port."""
        return key[:4] + key[8:10] if self.per_flow else key[:4]

    def target(self, member: Member) -> DatagramTarget:
        """How the service's datagrams reach a member of its pool."""
        found = self._targets.get(member)
        if found is None:
            steering = DatagramSteering(self.vip, IPv4Address(member.bridge).packed, self.dscp)
            found = self._targets[member] = DatagramTarget(member, self.pool, steering)
        return found

    @property
    def targets(self) -> Iterator[DatagramTarget]:
        """All that its datagrams can go to."""
        return (self.target(member) for member in self.pool.members)

    def target_at(self, bridge: bytes) -> DatagramTarget | None:
        """The one with that bridge address (4 bytes)."""
        return next((t for t in self.targets if t.steering.bridge == bridge), None)


def fitting(
    services: Mapping[bytes, DatagramService], key: bytes, bridge: bytes
) -> tuple[DatagramService, DatagramTarget] | None:
    """Of these services, by VIP and port, and their backends those of a mapping with that key and
    bridge; None where there are none such, or the service has the other kind of key."""
    service = services.get(key[4:8] + key[10:])
    if service is None or service.per_flow is (key[8:10] == ANY_PORT):
        return None
    target = service.target_at(bridge)
    return None if target is None else (service, target)
