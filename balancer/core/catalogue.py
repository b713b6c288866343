"""What is configured now, as the packets' code needs it: pools and services.

A changed configuration makes another catalogue beside the one in force, little by little, so that
packets are not held up, and then takes its place at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from balancer.core import config as settings
from balancer.core.choice.pool import Pool
from balancer.core.choice.rate_limit import RateLimit
from balancer.core.config import Config
from balancer.core.datagrams.service import DatagramService
from balancer.core.service import Paths, Service


class PoolLimit:
    """A pool's rate limit, and what is known of who is near it."""

    __slots__ = ("_buckets", "_by_key", "configured")

    def __init__(self, configured: settings.RateLimit) -> None:
        self.configured = configured
        self._by_key = configured.per == "key"
        self._buckets = RateLimit(configured)

    def wait(self, key: bytes, source: bytes, now: float) -> float:
        """Seconds until a connection of that key and client address is within the limit; 0.0: it
        is."""
        return self._buckets.take(key if self._by_key else source, now)


class Catalogue:
    """``pools`` and their rate ``limits`` by name; ``services`` by VIP and port (6 bytes), those of
    UDP apart; the ``vips`` of all of them. ``inspects``: of some clients something is read."""

    def __init__(
        self,
        pools: dict[str, Pool],
        limits: dict[str, PoolLimit],
        services: Iterable[Service],
        datagram_services: Iterable[DatagramService] = (),
    ) -> None:
        self.pools = pools
        self.limits = limits
        self.services = {service.endpoint: service for service in services}
        self.datagram_services = {service.endpoint: service for service in datagram_services}
        self.inspects = any(not each.uninspected for each in self.services.values())
        self.vips = frozenset(at[:4] for at in (*self.services, *self.datagram_services))

    def current(self, pool: Pool) -> Pool:
        """The pool itself, or what has taken over from it."""
        named = self.pools.get(pool.name)
        return pool.latest if named is None else named


def build(
    config: Config, paths: Paths, now: float, former: Catalogue | None = None
) -> Generator[None, None, Catalogue]:
    """The catalogue of a configuration; yields after each part. What the ``former`` has of the same
    pools and backends goes on: who is up, how busy, how much each was given."""
    pools: dict[str, Pool] = {}
    limits: dict[str, PoolLimit] = {}
    for name, configured in config.all_pools.items():
        old = None if former is None else former.pools.get(name)
        pool = pools[name] = Pool(configured) if old is None else old.reconfigured(configured, now)
        yield from pool.building()
        limit = configured.limit
        if limit is not None:
            known = None if former is None else former.limits.get(name)
            same = known is not None and known.configured == limit
            limits[name] = known if same and known else PoolLimit(limit)
        yield
    services, datagram_services = [], []
    for service in config.services:
        own = {pool.name: pools[pool.name] for pool in config.pools_of(service)}
        if service.protocol == "udp":
            (pool,) = own.values()
            datagram_services.append(DatagramService(service, pool, config.timeouts))
        else:
            routes = config.routes_of(service)
            services.append(Service(service, routes, own, paths, config.timeouts))
        yield
    return Catalogue(pools, limits, services, datagram_services)


def built(config: Config, paths: Paths, now: float) -> Catalogue:
    """The same in one go."""
    building = build(config, paths, now)
    while True:
        try:
            next(building)
        except StopIteration as done:
            catalogue: Catalogue = done.value
            return catalogue


def even(config: Config, mtu: int = 1500) -> Paths:
    """Paths that all take packets of ``mtu`` bytes."""
    bridges = {b.bridge for pool in config.all_pools.values() for b in pool.backends}
    vips = {service.vip for service in config.services}
    return Paths(dict.fromkeys(bridges, mtu), dict.fromkeys(vips, mtu))
