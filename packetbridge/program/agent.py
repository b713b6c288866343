"""What the bridge tells its agent, and hears from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address

from common.adapters.own_process import process_numbers
from common.core.agent_settings import AgentSettings, ServerCheck
from common.core.bridge_health import HEAD, LIST, Entry, Result, encode_entry
from common.core.health import Rhythm
from common.core.metrics import Row
from common.core.program_metrics import Build
from common.program.agent_side import Shown
from common.program.control import basics
from packetbridge.core.config import Backend, Config
from packetbridge.core.health import ServerHealth, who
from packetbridge.program import metrics
from packetbridge.program.metrics import EntryRead, Ways


class BridgeAgent:
    """Implements common.program.agent_side.Program. ``config`` gives the configuration in force,
    ``entries`` the core's ways in, ``numbers`` all that the loop and the core count, by name.

    A changed configuration is noticed at the next command, within a second.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        entries: Callable[[], Iterable[EntryRead]],
        health: ServerHealth,
        numbers: Callable[[], Mapping[str, int]],
        build: Build,
        now: float,
    ) -> None:
        self._config = config
        self._entries = entries
        self._health = health
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
        for (address, port, dscps), well, reason in results:
            self._health.checked((address, port, dscps), well, reason, now)
        return self._generation

    def health(self, _now: float) -> Shown:
        """What common.core.bridge_health says, of each way in."""
        for entry in self._entries():
            backend = self._ways.backend(entry)
            if backend is not None:
                yield LIST, encode_entry(_entry(entry, backend, self._health))
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
    )


def _entry(entry: EntryRead, backend: Backend, health: ServerHealth) -> Entry:
    judge, figures = health.judge(backend), entry.figures
    return Entry(
        address=backend.address,
        port=backend.port,
        dscps=(entry.dscp,),
        server=f"{IPv4Address(entry.server)}:{entry.server_port}",
        up=judge is None or judge.up,
        reason="" if judge is None else judge.reason,
        opened=figures.opened,
        refused=figures.refused,
        silent=figures.silent,
        reset=figures.resets,
    )
