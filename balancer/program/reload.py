"""Another configuration while packets go on: read and looked at in a child process, built little by
little, and in force at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from balancer.core.config import Config, Service
from balancer.core.engine import Balancer
from balancer.core.rules import rules
from balancer.core.service import Paths
from balancer.program import ways
from common.adapters.firewall import Firewall, FirewallError
from common.adapters.meanwhile import Meanwhile
from common.adapters.routes import RouteError
from common.program.control import basics
from common.program.control.basics import Done
from common.program.loop import PacketLoop
from common.program.reload import Turns, ending, fixed, let_go_aside, look_aside
from common.program.reporting import UsageProblems

# What is set up once, for as long as the program runs.
FIXED = ("interface", "datapath", "queue", "key_file", "control", "limits.closed")
FORMER_LOOKS = 2.0  # seconds between two looks at whether former services still have connections

log = logging.getLogger(__name__)

Endpoint = tuple[str, int, str]  # a VIP, a port, a protocol
Found = tuple[Config, Paths, list[str]]  # what is to be in force, or why it cannot be


class Configured:
    """The ``config`` in force, and the way to another. ``again`` reads it from where it stands."""

    def __init__(
        self,
        loop: PacketLoop,
        core: Balancer,
        config: Config,
        paths: Paths,
        again: Callable[[], Config],
    ) -> None:
        self.config = config
        self._paths = paths
        self._again = again
        self._loop, self._core = loop, core
        self._former: tuple[Service, ...] = ()
        self._looking = False  # at whether these still have connections
        self.meanwhile = Meanwhile(loop.watch)
        self._turns = Turns()
        core.access.wanted = bool(config.access_log.file)

    def read_again(self, done: Done) -> None:
        """The job of a reload: what the file says, with the flags of the start."""
        self._look(self._again, done)

    def apply(self, config: Config, done: Done) -> None:
        """The job that has this configuration in force."""
        self._look(lambda: config, done)

    def _look(self, read: Callable[[], Config], done: Done) -> None:
        def begin(over: Callable[[], None]) -> None:
            told = ending(over, done)
            former = self._former_with(self.config)
            look = partial(_looked_at, read, self.config, self._paths, former)
            look_aside(self.meanwhile, look, partial(self._take, told), told)

        self._turns.take(begin)

    def _take(self, done: Done, found: Found) -> None:
        config, paths, mistakes = found
        if mistakes:
            done(mistakes)
            return
        in_force = partial(self._in_force, config, paths, done)
        self._core.reconfigure(config, paths, time.monotonic(), in_force)

    def _in_force(self, config: Config, paths: Paths, done: Done, error: str) -> None:
        if error:
            done([error])
            return
        self._former = tuple(
            service
            for service in self._former_with(self.config)
            if _endpoint(service) not in map(_endpoint, config.services)
        )
        self.config, self._paths = config, paths
        self._loop.drain = config.timeouts.drain
        self._core.access.wanted = bool(config.access_log.file)
        if basics.level() != config.log_level:
            basics.set_level(self._loop, config.log_level)
        for line in ways.narrow(config, paths):
            log.info(line)
        self._look_later()
        done([])

    def _former_with(self, config: Config) -> tuple[Service, ...]:
        """Services that still have connections, configured or not."""
        return (*self._former, *config.services)

    def _look_later(self) -> None:
        """While there are former services, see to it that they are looked at, once at a time."""
        if self._former and not self._looking:
            self._looking = True
            when = time.monotonic() + FORMER_LOOKS
            self._loop.watch.at(when, lambda _: self._core.find_busy(self._let_go))

    def _let_go(self, busy: set[tuple[str, int]]) -> None:
        """Remove the rules of former services whose connections are over."""
        self._looking = False
        looked_at, config = self._former, self.config

        def begin(over: Callable[[], None]) -> None:
            left = tuple(service for service in looked_at if _is_busy(service, busy))
            if (self._former, self.config) != (looked_at, config) or left == looked_at:
                over()
            else:
                self._former = left
                install = partial(_install, config, left)
                let_go_aside(self.meanwhile, install, over)
            self._look_later()

        self._turns.take(begin)


def _looked_at(
    read: Callable[[], Config], old: Config, paths: Paths, former: tuple[Service, ...]
) -> Found:
    """In a child process: the configuration, what its ways take, and its rules in place beside
    those of what is in force."""
    try:
        new = read()
        mistakes = list(fixed(FIXED, old, new))
        if mistakes:
            return old, paths, mistakes
        found = ways.paths(new, paths.to_bridges)
        if {_endpoint(s) for s in new.services} != {_endpoint(s) for s in old.services}:
            _install(new, former)
    except UsageProblems as error:
        return old, paths, error.problems
    except (RouteError, FirewallError, OSError) as error:
        return old, paths, [str(error)]
    return new, found, []


def _install(config: Config, former: tuple[Service, ...]) -> None:
    Firewall("balancer", *rules(config, former)).install()


def _endpoint(service: Service) -> Endpoint:
    return service.vip, service.port, service.protocol


def _is_busy(service: Service, busy: set[tuple[str, int]]) -> bool:
    """Clients of UDP have no connections that would go on."""
    return service.protocol == "tcp" and (service.vip, service.port) in busy
