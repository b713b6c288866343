"""Another configuration while packets go on: read and looked at in a child process, then in force
at once, for new connections; those by ways in that are gone go on until they end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

from common.adapters import checks
from common.adapters.firewall import Firewall, FirewallError
from common.adapters.meanwhile import Meanwhile
from common.adapters.routes import RouteError
from common.program.control import basics
from common.program.control.basics import Done
from common.program.loop import PacketLoop
from common.program.reload import Turns, ending, fixed, let_go_aside, look_aside
from common.program.reporting import UsageProblems
from packetbridge.core.config import Backend, Config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.rules import Kernel, rules
from packetbridge.program import fast_path, ways
from packetbridge.program.ways import Host

# What is set up once, for as long as the program runs.
FIXED = ("interface", "datapath", "queue", "mark", "key_file", "control")
FORMER_LOOKS = 5.0  # seconds between two looks at whether former ways in still have connections

log = logging.getLogger(__name__)

Former = tuple[tuple[Config, Backend], ...]
Room = tuple[int, int]  # for flows and mappings
Found = tuple[Config, Host, list[str]]  # what is to be in force, or why it cannot be


class Configured:
    """The ``config`` in force, and the way to another. ``again`` reads it from where it stands.
    The ``kernel``'s path has room for as many flows and mappings as there were to be at the start.
    """

    def __init__(
        self,
        loop: PacketLoop,
        core: Bridge,
        config: Config,
        host: Host,
        kernel: Kernel | None,
        again: Callable[[], Config],
    ) -> None:
        self.config = config
        self._host, self._kernel, self._again = host, kernel, again
        self._room = None if kernel is None else (config.limits.flows, fast_path.room(config))
        self._loop, self._core = loop, core
        self._former: Former = ()
        self.meanwhile = Meanwhile(loop.watch)
        self._turns = Turns()
        core.access.wanted = bool(config.access_log.file)

    def read_again(self, done: Done) -> None:
        """The job of a reload: what the file says, with the flags of the start."""

        def begin(over: Callable[[], None]) -> None:
            told = ending(over, done)
            former = (*self._former, *((self.config, backend) for backend in self.config.backends))
            look = partial(
                _looked_at, self._again, self.config, self._host, self._kernel, former, self._room
            )
            look_aside(self.meanwhile, look, partial(self._take, told), told)

        self._turns.take(begin)

    def _take(self, done: Done, found: Found) -> None:
        config, host, mistakes = found
        if mistakes:
            done(mistakes)
            return
        gone = [(self.config, b) for b in self.config.backends if b not in config.backends]
        self._former = (*self._former, *gone)
        self._core.reconfigure(ways.entries(config, host), config.limits, config.timeouts)
        self.config, self._host = config, host
        self._loop.drain = config.timeouts.drain
        self._core.access.wanted = bool(config.access_log.file)
        if basics.level() != config.log_level:
            basics.set_level(self._loop, config.log_level)
        # The rules of what was before are in place still.
        self._loop.watch.at(time.monotonic() + FORMER_LOOKS, self._let_go)
        done([])

    def _let_go(self, now: float) -> None:
        """Remove the rules of former ways in whose connections are over."""

        def begin(over: Callable[[], None]) -> None:
            in_use = self._core.former()
            left = tuple(way for way in self._former if any(_leads(way, each) for each in in_use))
            if left:
                self._loop.watch.at(now + FORMER_LOOKS, self._let_go)
            if left == self._former:
                over()
                return
            self._former = left
            install = partial(_install, self.config, self._host, self._kernel, left)
            let_go_aside(self.meanwhile, install, over)

        self._turns.take(begin)


def _looked_at(
    read: Callable[[], Config],
    old: Config,
    host: Host,
    kernel: Kernel | None,
    former: Former,
    room: Room | None,
) -> Found:
    """In a child process: the configuration, what its servers are to this host, and its rules in
    place beside those of what is in force."""
    try:
        new = read()
        mistakes = list(_fixed(old, new, room))
        if mistakes:
            return old, host, mistakes
        found = Host(ways.local(new), checks.uses_bbr())
        if (new.backends, new.balancers) != (old.backends, old.balancers):
            both = Host(found.local | host.local, found.bbr)
            _install(new, both, kernel, former)
    except UsageProblems as error:
        return old, host, error.problems
    except (RouteError, FirewallError, OSError) as error:
        return old, host, [str(error)]
    return new, found, []


def _install(config: Config, host: Host, kernel: Kernel | None, former: Former) -> None:
    Firewall("packetbridge", *rules(config, host.local, kernel, former)).install()


def _fixed(old: Config, new: Config, room: Room | None) -> Iterator[str]:
    yield from fixed(FIXED, old, new)
    if room is None:
        return
    wanted = {"flows": new.limits.flows, "mappings": fast_path.room(new)}
    for (name, most), there in zip(wanted.items(), room, strict=True):
        if most > there:
            more = f"{most} is more than there was room for at the start"
            if name == "mappings" and not any(b.protocol == "udp" for b in old.backends):
                more += ", without a backend of UDP"
            yield f"limits.{name}: {more}; right would be up to {there}, or a restart"


def _leads(way: tuple[Config, Backend], entry: Entry) -> bool:
    """Whether an entry is one of a backend's."""
    config, backend = way
    udp = "/udp" if backend.protocol == "udp" else ""
    names = {f"{backend.address}:{backend.port}/{dscp}{udp}" for dscp in config.dscps(backend)}
    server = f"{backend.server_address}:{backend.server_port}"
    return entry.name in names and entry.server_name == server
