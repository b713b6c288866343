"""Who runs a balancer, and the process beside it: what they do at any moment."""

from __future__ import annotations

import json
import random
from collections import deque
from itertools import islice

from balancer.core import config
from balancer.core.catalogue import even
from balancer.core.choice.maglev import key_hash
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.engine import Balancer
from balancer.core.flow import Flow, State
from balancer.core.request.selector import Selected
from balancer.core.request.synthetic import UnsendableError, request_bytes
from balancer.core.request.tls.synthetic import client_hello
from tests.fuzz.configurations import Configurations
from tests.fuzz.invariants import chosen_alike
from tests.fuzz.place import Place

AMONG = 50  # connections, the oldest
KEPT = 100  # members that are not in a pool any more
MTUS = (1500, 1500, 1400, 600)
URLS = ("/", "/0?sid=1", "http://a.h:80/abc#x", "*", "h:443", "ftp://h/", "/\xe9", "http://a.h")
HEADERS = ("Host: a.h", "X-Tenant: b", "Cookie: a=1; sid=2", "bad header", "Host: h")
NAMES = ("a.h", "", "X.Example.", "a b", "b\xfccher.example")
PROTOCOLS = ("h2", "x", "", "http/1.1")


class BalancerOperator:
    """``known`` are members that pools have had."""

    def __init__(
        self, rng: random.Random, core: Balancer, configurations: Configurations, place: Place
    ) -> None:
        self._rng, self._core, self._configurations = rng, core, configurations
        self._place = place
        self._reloading = False
        self.known: deque[Member] = deque(maxlen=KEPT)
        core.access.wanted = rng.random() < 0.8

    def act(self, now: float) -> None:
        """One thing."""
        rng = self._rng
        whole = (
            (self._reload, 2),
            (self._look, 3),
            (self._kill, 1),
            (self._forget, 1),
            (self._trace, 1),
        )
        pools = ((self._check, 6), (self._occupy, 3), (self._ask, 4))
        acts, weights = zip(*whole, *pools, strict=True)
        rng.choices(acts, weights)[0](now)

    def _some(self) -> tuple[Pool, Member]:
        pool = self._rng.choice(list(self._core.pools.values()))
        return pool, self._rng.choice(pool.members)

    def _reload(self, now: float) -> None:
        if self._reloading:  # there is one at a time
            return
        self._reloading = True
        for pool in self._core.pools.values():
            self.known.extend(pool.members)
        new = self._configurations.any()
        self._core.reconfigure(new, even(new, self._rng.choice(MTUS)), now, self._reloaded)

    def _reloaded(self, error: str) -> None:
        assert not error
        self._reloading = False
        if self._rng.random() < 0.2:
            self._core.access.wanted = not self._core.access.wanted

    def _check(self, now: float) -> None:
        rng = self._rng
        pool, member = self._some()
        name = member.name if rng.random() < 0.95 else "nobody"
        well = rng.random() < 0.8
        self._core.health.checked(pool.name, name, well, "" if well else "refused", now)
        assert self._core.health.judge(pool.name, "nobody") is None

    def _occupy(self, now: float) -> None:
        rng = self._rng
        pool, member = self._some()
        draw = rng.random()
        if draw < 0.15:
            pool.drain(member)
        elif draw < 0.6:
            pool.ready(member, now)
        elif draw < 0.65 and len(pool.members) > 1:
            self.known.append(member)
            pool.remove(member)
        elif draw < 0.7:
            self._add(pool, now)
        else:
            pool.set_weight(member, rng.choice((0, 1, 1, 3, 3, 1000)))

    def _add(self, pool: Pool, now: float) -> None:
        """One that is there, or was, or is new."""
        bridges = self._configurations.bridges
        at = self._rng.randrange(len(bridges))
        backend = config.Backend(f"b{at}", bridges[at], self._rng.choice((0, 1, 2)))
        there = any(backend.bridge == member.bridge for member in pool.members)
        try:
            added = pool.add(backend, now)
        except ValueError:
            assert there
        else:
            assert not there
            assert pool.find(backend.name) is added

    def _kill(self, now: float) -> None:
        flow = self._flow()
        if flow is not None:
            self._core.kill(flow, now)
            assert flow.state is State.GONE

    def _forget(self, now: float) -> None:
        mappings = list(islice(self._core.datagrams.table.every(), AMONG))
        if mappings:
            mapping = self._rng.choice(mappings)
            self._core.kill(mapping, now)
            assert mapping.gone

    def _flow(self) -> Flow | None:
        flows = islice(self._core.table.every(), AMONG)
        there = [flow for flow in flows if flow.state is not State.GONE]
        return self._rng.choice(there) if there else None

    def _trace(self, _now: float) -> None:
        fast, flow = self._core.fast, self._flow()
        fast.withhold(lambda each: each is flow)
        if flow is not None:
            self._core.recall(flow)
            fast.renew(flow)
        fast.settle()
        fast.withhold(None)

    def _busy(self, endpoints: set[tuple[str, int]]) -> None:
        """As the core finds them, once it has looked at all connections."""
        assert len(endpoints) <= 2

    def _look(self, now: float) -> None:
        core = self._core
        for record in core.access.take(self._rng.choice((1, 1000))):
            json.dumps(record, allow_nan=False)
        table = core.table
        assert core.remaining() <= sum(map(len, (table.handed, table.waiting, table.opening)))
        core.find_busy(self._busy)
        core.rekey([self._place.keys], now)

    def _ask(self, now: float) -> None:
        """Where a request would go, as `explain` asks it."""
        rng, core = self._rng, self._core
        source = rng.randbytes(4)
        service = rng.choice(core.services)
        headers = rng.sample(HEADERS, rng.randint(0, 3))
        try:
            if service.inspect == "tls":
                head = client_hello(rng.choice(NAMES), rng.sample(PROTOCOLS, rng.randint(0, 2)))
            else:
                head = request_bytes(rng.choice(("GET", "CONNECT", "@")), rng.choice(URLS), headers)
        except UnsendableError:
            return
        found = service.selector.inspect(head, service.max_head, source)
        if isinstance(found, Selected):
            chosen_alike(service.pools[found.pool], key_hash(found.key), source, now)
