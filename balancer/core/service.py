"""A service at run time: its backends as steering targets, its hash table, what it promises."""

from __future__ import annotations

from ipaddress import IPv4Address

from balancer.core import config as settings
from balancer.core.choice import maglev
from balancer.core.steering import Steering
from common.core import handoff
from common.core.segment import MIN_PACKET


class Target:
    """One backend of a service: the bridge that its connections are handed to."""

    __slots__ = ("name", "segment_bytes", "steering", "unanswered")

    def __init__(self, name: str, steering: Steering, path_mtu: int) -> None:
        self.name = name
        self.unanswered = 0  # handoffs repeated since the bridge was last heard of
        self.steering = steering
        # payload of a handoff that we build: headers, our option and timestamps fit beside it
        self.segment_bytes = path_mtu - MIN_PACKET - handoff.LENGTH - 12


class Service:
    """What the packets' code needs of one configured service.

    ``path_mtus`` gives the bytes of the largest packet to each backend, in the backends' order,
    ``client_mtu`` that of the interface towards the clients.
    """

    def __init__(self, configured: settings.Service, path_mtus: list[int], client_mtu: int) -> None:
        self.name = configured.name
        self.vip = IPv4Address(configured.vip).packed
        self.port = configured.port
        self.source_hash_bad = configured.bad_request == "source-hash"
        self.max_head = configured.max_head
        self.window_scale = configured.window_scale
        # the SYN-ACK's window: no more than will be kept, and unscaled as in every SYN
        self.window = min(configured.max_head, 0xFFFF)
        # Room for the handoff option: a client's full segment must still fit with it (RFC 9293
        # section 3.7.1 subtracts fixed headers only)
        self.mss = min([client_mtu, *path_mtus]) - MIN_PACKET - handoff.LENGTH
        self.targets = [
            Target(
                backend.name,
                Steering(self.vip, IPv4Address(backend.bridge).packed, configured.dscp),
                mtu,
            )
            for backend, mtu in zip(configured.backends, path_mtus, strict=True)
        ]
        self._table = maglev.Table(
            [backend.name for backend in configured.backends],
            [backend.weight for backend in configured.backends],
            65537,
        )

    def target_at(self, bridge: bytes) -> Target | None:
        """The target with that bridge address (4 bytes)."""
        return next((t for t in self.targets if t.steering.bridge == bridge), None)

    def choose(self, key: bytes) -> Target:
        """The target of a key: Maglev over its hash."""
        return self.targets[self._table.lookup(maglev.key_hash(key))]
