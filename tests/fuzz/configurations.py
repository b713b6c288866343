"""Configurations of a balancer, one as good as the next: what a reload may bring."""

from __future__ import annotations

import random
from typing import Any

from balancer.core import config
from tests.fuzz import datagrams
from tests.fuzz.place import PORT, Place

POLICIES = ("maglev", "ring", "rendezvous", "round-robin", "least-pending", "source")
KEYS = (
    ("path",), ("path",), ("uri",), ("source",), ("host",), ("query:sid",), ("header:X-Tenant",),
    ("cookie:sid", "host"), ("query:sid", "source", "path"),
)  # fmt: skip
# What a service speaks, and keys that can be had of all in that column.
SPOKEN = {
    ("http", "http"): KEYS,
    ("tls", "tls"): (("sni",), ("alpn",), ("sni", "alpn"), ("source",), ()),
    ("http", "tls"): ((), ("source",)),
    ("none", "none"): ((), ("source",), ("source-port",)),
    ("http", "none"): ((), ("source",)),
}
PATHS = ("/", "/0", "/abc")
REGEXES = ("/[0-7]", "/.*c", "/(a|b|c)+")
HEADERS = ((("x-tenant", "*"),), (("x-tenant", "b"), ("host", "*")), (("user-agent", "fuzz"),))
HOSTS = (("h",), ("a.h", "*.example"), ("*.h",))
PROTOCOLS = (("h2",), ("x", "http/1.1"))
MOST_POOLS = 4


class Configurations:
    """For services of the ``place``; backends are its bridges and some more."""

    def __init__(self, rng: random.Random, place: Place, limits: config.Limits) -> None:
        self._rng, self._place, self._limits = rng, place, limits
        first = place.bridges[0].rpartition(".")[0]
        self._spoken = ("http", "http")
        self.bridges = (*place.bridges, *(f"{first}.{last}" for last in range(60, 66)))

    def any(self) -> config.Config:
        """Another one each time; most names stay."""
        rng = self._rng
        names = rng.sample([f"p{n}" for n in range(MOST_POOLS)], rng.randint(1, MOST_POOLS))
        self._spoken = rng.choices(list(SPOKEN), (4, 1, 2, 2, 1))[0]
        pools = tuple(self._pool(name) for name in names)
        vips = list(self._place.vips.items())
        vips = vips if rng.random() < 0.9 else vips[:1]
        count = 0 if self._spoken[0] == "none" else rng.choice((0, 0, 1, 3, 6))
        routes = [self._route(names, vips) for _ in range(count)]
        services = tuple(
            self._service(vip, dscp, names, routes, inspect)
            for (dscp, vip), inspect in zip(vips, self._spoken, strict=False)
        )
        services += datagrams.services(rng, vips)
        pools += (datagrams.pool(rng, self._backends()),)
        closing = rng.choice((5.0, 15.0))
        timeouts = config.Timeouts(request=60.0, closing=closing, idle=rng.choice((120.0, 960.0)))
        return config.Config(services, tuple(routes), pools, limits=self._limits, timeouts=timeouts)

    def _pool(self, name: str) -> config.Pool:
        rng = self._rng
        policy = rng.choice(POLICIES)
        hashed = policy in POLICIES[:3]
        check = config.Check(rise=rng.choice((1, 2)), fall=rng.choice((1, 3)))
        limit = config.RateLimit(
            rate=rng.choice((0.01, 1.0, 50.0)),
            burst=rng.choice((1, 3)),
            per=rng.choice(("source", "key")),
            over=rng.choice(("429", "reset")),
            tracked=rng.choice((3, 1000)),
        )
        return config.Pool(
            name,
            self._backends(),
            policy,
            key=rng.choice(SPOKEN[self._spoken]),
            missing=rng.choice(SPOKEN[self._spoken]) or ("source",),
            bounded_load=rng.choice((0.0, 1.1, 1.25, 2.0)) if hashed else 0.0,
            table_size=rng.choice((0, 17, 251)),
            points=rng.choice((1, 20)),
            remember=rng.choice((1.0, 600.0)),
            slow_start=rng.choice((0.0, 0.5, 20.0)),
            on_down=rng.choice(("keep", "reset")),
            retries=rng.choice((0, 1, 3, 3)),
            silence=rng.choice((0.25, 1.0, 1.0)),
            check=check if rng.random() < 0.7 else None,
            limit=limit if rng.random() < 0.3 else None,
        )

    def _backends(self) -> tuple[config.Backend, ...]:
        rng = self._rng
        chosen = rng.sample(range(len(self.bridges)), rng.choice((1, 2, 3, 3, 5)))
        return tuple(
            config.Backend(f"b{n}", self.bridges[n], rng.choice((1, 1, 1, 2, 7, 0))) for n in chosen
        )

    def _route(self, pools: list[str], vips: list[tuple[int, str]]) -> config.Route:
        rng = self._rng
        service = rng.choice((None, None, vips[0][1]))
        if self._spoken[-1] == "tls" and (service is None or self._spoken[0] == "tls"):
            protocols, hosts = rng.choice(((), (), *PROTOCOLS)), rng.choice(((), (), *HOSTS))
            return config.Route(rng.choice(pools), service=service, host=hosts, alpn=protocols)
        where = rng.choice(("path_prefix", "path_regex", None))
        return config.Route(
            rng.choice(pools),
            service=service,
            port=rng.choice((None, None, PORT)),
            host=rng.choice(((), (), *HOSTS)),
            path_prefix=rng.choice(PATHS) if where == "path_prefix" else None,
            path_regex=rng.choice(REGEXES) if where == "path_regex" else None,
            method=rng.choice(((), (), ("GET", "OPTIONS"))),
            header=rng.choice(((), (), *HEADERS)),
        )

    def _service(
        self, vip: str, dscp: int, pools: list[str], routes: list[config.Route], inspect: str
    ) -> config.Service:
        rng = self._rng
        own = rng.random() < 0.2
        routed = any(
            route.service in (None, vip) and not route.unreadable(inspect)
            for route in routes
            if inspect != "none"
        )
        return config.Service(
            vip,
            vip,
            PORT,
            dscp,
            None if own or (routed and rng.random() < 0.1) else rng.choice(pools),
            self._backends() if own else (),
            inspect=inspect,
            **({} if inspect == "none" else self._reading()),
            idle_timeout=rng.choice((None, None, 30.0)),
        )

    def _reading(self) -> dict[str, Any]:
        """Settings of a service of which something is read."""
        rng = self._rng
        return {
            "bad_request": rng.choice(("reset", "source-hash")),
            "max_head": rng.choice((1024, 2048, 16384, 16384)),
            "window_scale": rng.choice((0, 7, 7)),
            "sack": rng.random() < 0.8,
            "timestamps": rng.random() < 0.8,
        }
