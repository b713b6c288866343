"""What the bridge tells its agent, and hears from it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from common import __version__
from common.adapters.own_process import process_numbers
from common.core.agent_settings import AgentSettings, ServerCheck
from common.core.bridge_health import HEAD, LIST, Entry, Result, encode_entry
from common.core.health import Rhythm
from common.core.metrics import Row
from common.core.program_metrics import Build
from common.program.agent_side import Shown
from common.program.control import basics
from common.program.loop import PacketLoop
from packetbridge.core.config import Backend, Config
from packetbridge.core.engine import Bridge
from packetbridge.core.health import ServerHealth, who
from packetbridge.program import metrics
from packetbridge.program.metrics import EntryRead, Ways


class BridgeAgent:
    """Implements common.program.agent_side.Program. ``config`` gives the configuration in force,
    ``entries`` the core's ways in, ``numbers`` all that the loop and the core count, by name.
    ``mark`` is told of a way in by its name whether it is up, why not, and when.

    A changed configuration is noticed at the next command, within a second.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        entries: Callable[[], Iterable[EntryRead]],
        mark: Callable[[str, bool, str, float], None],
        numbers: Callable[[], Mapping[str, int]],
        build: Build,
        now: float,
    ) -> None:
        self._config = config
        self._entries = entries
        self._mark = mark
        self._health = ServerHealth()
        self._numbers = numbers
        self._build = build
        self._generation = 0
        self._followed: Config | None = None
        self._ways = Ways(())
        self._follow(now)

    def settings(self) -> AgentSettings:
        return settings(self._config(), self._generation)

    def checked(self, results: Iterable[Result], now: float) -> int:
        self._follow(now)
        changes = [
            self._health.checked(target, well, reason, now) for target, well, reason in results
        ]
        if any(changes):
            self._apply(now)
        return self._generation

    def health(self, _now: float) -> Shown:
        """What common.core.bridge_health says, of each way in."""
        for entry in self._entries():
            backend = self._ways.backend(entry)
            if backend is not None:
                yield LIST, encode_entry(_entry(entry, backend))
        return HEAD

    def metrics(self, _now: float) -> Iterator[Row]:
        return metrics.rows(
            self._numbers(),
            self._ways,
            self._entries(),
            self._health,
            process_numbers(),
            self._build,
        )

    def _follow(self, now: float) -> None:
        config = self._config()
        if self._followed is not config:
            self._followed = config
            self._ways = Ways(config.backends)
            self._generation += 1
            self._health.follow(config.backends, now)
            self._apply(now)

    def _apply(self, now: float) -> None:
        """Have the ways in be as their servers are judged: new ones may be there, too."""
        for entry in self._entries():
            backend = self._ways.backend(entry)
            judge = None if backend is None else self._health.judge(backend)
            up = judge is None or judge.up
            if entry.up != up:
                self._mark(entry.name, up, "" if judge is None else judge.reason, now)


def of(loop: PacketLoop, core: Bridge, config: Callable[[], Config], datapath: str) -> BridgeAgent:
    """Of a running bridge; ``datapath`` is the one in use."""
    return BridgeAgent(
        config,
        lambda: core.entries,
        core.mark_server,
        lambda: core.gauges() | {str(name): count for name, count in loop.counts().items()},
        Build(__version__, platform.python_version(), datapath),
        time.monotonic(),
    )


def settings(config: Config, generation: int) -> AgentSettings:
    """What the agent is to do by this configuration."""
    return AgentSettings(
        program="packetbridge",
        generation=generation,
        log_level=basics.level(),
        listen=config.endpoints,
        access_log=config.access_log.file,
        access_format=config.access_log.format,
        queues=((config.queue, "packets"),),
        servers=tuple(
            check for backend in config.backends if (check := _check(backend)) is not None
        ),
        families=metrics.FAMILIES,
    )


def _check(backend: Backend) -> ServerCheck | None:
    check = backend.check
    if check is None:
        return None
    return ServerCheck(
        target=who(backend),
        kind=check.kind,
        address=backend.server_address,
        port=backend.server_port,
        rhythm=Rhythm(check.interval, check.jitter),
        timeout=check.timeout,
        path=check.path,
        host=check.host,
        status=check.status,
        body=check.body,
        send=check.send.hex(),
        expect=check.expect.hex(),
        match=check.match,
    )


def _entry(entry: EntryRead, backend: Backend) -> Entry:
    figures = entry.figures
    return Entry(
        address=backend.address,
        port=backend.port,
        dscps=(entry.dscp,),
        server=entry.server_name,
        up=entry.up and not entry.draining,
        reason="draining" if entry.draining else entry.reason,
        opened=figures.opened,
        refused=figures.refused,
        # anybody can send SYNs, and in names that no kernel takes: nobody answers such
        silent=figures.silent if backend.handoff else 0,
        reset=figures.resets,
        protocol=backend.protocol,
        handoff=backend.handoff,
    )
