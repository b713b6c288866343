"""A service at run time: who may serve its connections, how that is chosen, what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from balancer.core import config as settings
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.request.selector import Selector
from balancer.core.request.tls.selector import TlsSelector
from balancer.core.steering import Steering
from common.core import handoff
from common.core.segment import MIN_PACKET


class Paths(NamedTuple):
    """Bytes of the largest packet: by bridge (its address) on the way there, and by VIP that of the
    interface towards the clients."""

    to_bridges: Mapping[str, int]
    to_clients: Mapping[str, int]


class Target:
    """A pool's member as one service's connections reach it."""

    __slots__ = ("member", "pool", "segment_bytes", "steering", "unanswered")

    def __init__(self, member: Member, pool: Pool, steering: Steering, path_mtu: int) -> None:
        self.member = member
        self.pool = pool
        self.steering = steering
        self.unanswered = 0  # handoffs repeated since the bridge was last heard of
        # payload of a handoff that we build: headers, our option and timestamps fit beside it
        self.segment_bytes = path_mtu - MIN_PACKET - handoff.LENGTH - 12

    @property
    def name(self) -> str:
        return self.member.name


class Service:
    """What the packets' code needs of one configured service.

    ``pools`` are those that its connections can go to, by name. Time-outs in seconds.
    """

    def __init__(
        self,
        configured: settings.Service,
        routes: tuple[settings.Route, ...],
        pools: Mapping[str, Pool],
        paths: Paths,
        timeouts: settings.Timeouts,
    ) -> None:
        self.name = configured.name
        self.vip = IPv4Address(configured.vip).packed
        self.port = configured.port
        self.dscp = configured.dscp
        self.inspect = configured.inspect
        self.source_hash_bad = configured.bad_request == "source-hash"
        self.max_head = configured.max_head
        self.window_scale = configured.window_scale
        self.sack, self.timestamps = configured.sack, configured.timestamps
        # the SYN-ACK's window: no more than will be kept, and unscaled as in every SYN
        self.window = min(configured.max_head, 0xFFFF)
        self.request_timeout = configured.request_timeout or timeouts.request
        self.idle_timeout = configured.idle_timeout or timeouts.idle
        self.pools = pools
        self.default_pool = configured.default_pool
        self.selector = _selector(configured, routes, pools)
        self._ways = paths.to_bridges
        mtus = [self._ways[member.bridge] for pool in pools.values() for member in pool.members]
        # Room for the handoff option: a client's full segment must still fit with it (RFC 9293
        # section 3.7.1 subtracts fixed headers only)
        smallest = min([paths.to_clients[configured.vip], *mtus])
        self._narrowest = smallest
        self.mss = smallest - MIN_PACKET - handoff.LENGTH
        self._targets: dict[Member, Target] = {}

    @property
    def uninspected(self) -> bool:
        """Whether connections are steered from their SYN on, and nobody reads them."""
        return self.inspect == "none"

    @property
    def endpoint(self) -> bytes:
        """6 bytes: the VIP and the port."""
        return self.vip + self.port.to_bytes(2, "big")

    def target(self, pool: Pool, member: Member) -> Target:
        """How the service's connections reach a pool's member."""
        found = self._targets.get(member)
        if found is None or found.pool is not pool:
            steering = Steering(self.vip, IPv4Address(member.bridge).packed, self.dscp)
            found = Target(member, pool, steering, self._path_mtu(member))
            self._targets[member] = found
        return found

    @property
    def targets(self) -> Iterator[Target]:
        """All that its connections can go to."""
        for pool in self.pools.values():
            for member in pool.members:
                yield self.target(pool, member)

    def target_at(self, bridge: bytes) -> Target | None:
        """The first target with that bridge address (4 bytes)."""
        return next((t for t in self.targets if t.steering.bridge == bridge), None)

    def _path_mtu(self, member: Member) -> int:
        """A member that was not there when the service was configured, which goes on for its
        connections alone, has the smallest path of those that were."""
        return self._ways.get(member.bridge, self._narrowest)


def _selector(
    configured: settings.Service, routes: tuple[settings.Route, ...], pools: Mapping[str, Pool]
) -> Selector | TlsSelector:
    """What reads the clients' first bytes; of nobody's where nothing is inspected."""
    reached = [pool.configured for pool in pools.values()]
    if configured.inspect == "tls":
        return TlsSelector(routes, reached, configured.default_pool, configured.natural_key)
    if configured.inspect == "none":
        return Selector((), (), None)
    return Selector(routes, reached, configured.default_pool)
