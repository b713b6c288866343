"""What the balancer tells its agent, and hears from it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from balancer.core.config import Check, Config
from balancer.core.engine import Balancer
from balancer.core.health import PoolHealth
from balancer.core.times import Times
from balancer.program import metrics
from balancer.program.metrics import MemberNumbers, PoolNumbers
from common import __version__
from common.adapters.own_process import process_numbers
from common.core.agent_settings import AgentSettings, BridgeCheck, EntryName, Member
from common.core.bridge_health import Result
from common.core.health import Rhythm
from common.core.metrics import Row
from common.core.program_metrics import Build
from common.program.agent_side import Shown
from common.program.control import basics
from common.program.loop import PacketLoop


class BalancerAgent:
    """Implements common.program.agent_side.Program. ``config`` gives the configuration in force,
    ``pools`` those that the core has, ``numbers`` all that the loop and the core count, by name.

    What changes in the former two is noticed at the next command, within a second.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        pools: Callable[[], Mapping[str, PoolNumbers]],
        health: PoolHealth,
        times: Times,
        numbers: Callable[[], Mapping[str, int]],
        build: Build,
        now: float,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._pools = pools
        self._health = health
        self._times = times
        self._numbers = numbers
        self._build = build
        self._draining = draining
        self._generation = 0
        self._followed: object = None
        self._follow(now)

    def settings(self) -> AgentSettings:
        return settings(self._config(), self._pools(), self._generation)

    def checked(self, results: Iterable[Result], now: float) -> int:
        self._follow(now)
        for (pool, backend), well, reason in results:
            self._health.checked(pool, backend, well, reason, now)
        return self._generation

    def health(self, now: float) -> Shown:
        """``status`` is "down" where no pool can take a connection, or none is to be taken any
        more; "degraded" where a backend is down; of a pool likewise, "down" where it can take
        none."""
        found = set()
        for name, pool in self._pools().items():
            shown = _pool(name, pool, self._health, now)
            found.add(shown["status"])
            yield "pools", shown
        status = "ok" if found <= {"ok"} else "down" if found == {"down"} else "degraded"
        draining = self._draining()
        return {
            "status": "down" if draining else status,
            "program": "balancer",
            "draining": draining,
        }

    def metrics(self, _now: float) -> Iterator[Row]:
        return metrics.rows(
            self._numbers(),
            self._pools(),
            self._health,
            self._times,
            process_numbers(),
            self._build,
        )

    def _follow(self, now: float) -> None:
        config, pools = self._config(), self._pools()
        checked = [
            (name, pool.configured.check, [(one.name, one.bridge) for one in pool.members])
            for name, pool in pools.items()
        ]
        if self._followed != (config, checked):
            self._followed = config, checked
            self._generation += 1
            self._health.follow(pools, now)


def of(
    loop: PacketLoop, core: Balancer, config: Callable[[], Config], datapath: str
) -> BalancerAgent:
    """Of a running balancer; ``datapath`` is the one in use."""
    return BalancerAgent(
        config,
        lambda: core.pools,
        core.health,
        core.times,
        lambda: core.gauges() | {str(name): count for name, count in loop.counts().items()},
        Build(__version__, platform.python_version(), datapath),
        time.monotonic(),
        lambda: core.draining,
    )


def settings(config: Config, pools: Mapping[str, PoolNumbers], generation: int) -> AgentSettings:
    """What the agent is to do by this configuration, with the backends that there are."""
    return AgentSettings(
        program="balancer",
        generation=generation,
        log_level=basics.level(),
        listen=config.http.listen,
        access_log=config.access_log.file,
        access_format=config.access_log.format,
        queues=tuple((number, name) for name, number in config.queues.items()),
        bridges=checks(config, pools),
        families=metrics.FAMILIES,
    )


def checks(config: Config, pools: Mapping[str, PoolNumbers]) -> tuple[BridgeCheck, ...]:
    """One for each bridge, port and way to ask, whatever the number of pools that it is in."""
    members: dict[tuple[Any, ...], list[Member]] = {}
    entries, unread = _entries(config)
    for name, pool in pools.items():
        check = pool.configured.check
        if check is None or name not in entries:
            continue  # nobody is sent to the latter
        for backend in pool.members:
            target = name, backend.name
            member = Member(target, backend.bridge, entries[name], unread.get(name, ()))
            members.setdefault((backend.bridge, *_manner(check)), []).append(member)
    return tuple(
        BridgeCheck(bridge, port, rhythm, timeout, tuple(found))
        for (bridge, port, rhythm, timeout), found in members.items()
    )


def _manner(check: Check) -> tuple[int, Rhythm, float]:
    return check.port, Rhythm(check.interval, check.jitter), check.timeout


Entries = dict[str, tuple[EntryName, ...]]  # by the pool's name


def _entries(config: Config) -> tuple[Entries, Entries]:
    """Those of the services whose connections a pool gets; and of these, those of which nothing is
    read."""
    found: dict[str, dict[EntryName, bool]] = {}
    for service in config.services:
        for pool in config.pools_of(service):
            name = (service.port, service.dscp, service.protocol)
            found.setdefault(pool.name, {})[name] = service.inspect == "none"
    every = {pool: tuple(names) for pool, names in found.items()}
    unread = {pool: tuple(n for n, one in names.items() if one) for pool, names in found.items()}
    return every, unread


def _pool(name: str, pool: PoolNumbers, health: PoolHealth, now: float) -> dict[str, Any]:
    members = list(pool.members)
    taking = [member for member in members if member.up and not member.draining and member.weight]
    all_up = all(member.up for member in members)
    return {
        "name": name,
        "status": "down" if not taking else "ok" if all_up else "degraded",
        "backends": [_member(name, member, health, now) for member in members],
    }


def _member(pool: str, member: MemberNumbers, health: PoolHealth, now: float) -> dict[str, Any]:
    judge = health.judge(pool, member.name)
    return {
        "name": member.name,
        "bridge": member.bridge,
        "up": member.up,
        "reason": member.reason,
        "checked": judge is not None,
        "seconds": None if judge is None else round(now - judge.since, 1),
        "draining": member.draining,
        "weight": member.weight,
        "flows": member.pending,
    }
