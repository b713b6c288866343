"""The packet process's side of its agent: the commands that only it may give, and its keeping.

See common.program.agent for what they are. Each is answered between packets, so none does much:
what may be long is a generator, a page at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from common.adapters.agent.child import Child
from common.adapters.control.server import Command, CommandError, ControlServer, Pages
from common.adapters.watch import Watch
from common.core.agent_settings import AgentSettings, encode
from common.core.bridge_health import Result
from common.core.config import Control
from common.core.ledger import Occurrence
from common.core.metrics import Row
from common.program.control import basics
from common.program.control.beside import control
from common.program.loop import PacketLoop

PAGE = 64  # items in one go: some milliseconds at most
LOOK = 1.0  # seconds between two looks at whether the agent lives
LAST_RECORDS = 1.0  # seconds at most for what there is when the program ends
MOST_RECORDS = 512  # of the access log in one answer


class AgentCounts(Occurrence):
    """Of the process beside the packets."""

    STARTS = "agent_starts"


Shown = Generator[tuple[str, dict[str, Any]], None, dict[str, Any]]
"""Items of the lists in an answer, each with its list's name; returns the rest of the answer."""


class Program(Protocol):
    """What a program tells its agent, and hears from it. Times are monotonic seconds."""

    def settings(self) -> AgentSettings:
        """What it is to do now; their generation is another whenever they are."""

    def checked(self, results: Iterable[Result], now: float) -> int:
        """What checks have found; gives the settings' generation as it is now."""

    def health(self, now: float) -> Shown:
        """What is answered at /health."""

    def metrics(self, now: float) -> Iterator[Row]:
        """All samples."""


class Records(Protocol):
    """Connections that are over, for the access log: kept while ``wanted``."""

    def __len__(self) -> int: ...

    def take(self, most: int) -> list[dict[str, Any]]:
        """At most so many records, the oldest first, which are the caller's from then on."""


def commands(program: Program, records: Records, reopened: Callable[[], int]) -> dict[str, Command]:
    """The agent's commands. ``reopened`` counts how often the access log was to be opened anew."""

    def settings(_: Mapping[str, Any]) -> Pages:
        yield from _pages(encode(program.settings()))

    def health(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results = list(_results(arguments.get("results", [])))
        generation = program.checked(results, time.monotonic())
        return {"generation": generation, "log_level": basics.level()}

    def agent_health(_: Mapping[str, Any]) -> Pages:
        return (yield from _pages(program.health(time.monotonic())))

    def metrics(_: Mapping[str, Any]) -> Pages:
        yield from _pages(program.metrics(time.monotonic()))

    def access_log(arguments: Mapping[str, Any]) -> dict[str, Any]:
        most = arguments.get("most")
        if type(most) is not int or not 0 <= most <= MOST_RECORDS:
            raise CommandError(f"most: a whole number up to {MOST_RECORDS}")
        return {"records": records.take(most), "reopen": reopened()}

    table = {
        "agent-settings": settings,
        "health": health,
        "agent-health": agent_health,
        "metrics": metrics,
        "access-log": access_log,
    }
    return {name: Command(run, agent_only=True) for name, run in table.items()}


@contextmanager
def beside(
    loop: PacketLoop,
    configured: Control,
    known: Mapping[str, Command],
    program: Program,
    records: Records,
) -> Iterator[ControlServer]:
    """Serve the commands that are ``known``, and the agent's to an agent, while the loop runs.
    SIGUSR1 has the access log opened anew. Raises ControlSocketError."""
    reopened = 0

    def reopen() -> None:
        nonlocal reopened
        reopened += 1

    loop.reopen = reopen
    own = commands(program, records, lambda: reopened)
    with control(loop, configured, {**known, **own}) as server, agent(server) as child:
        yield server
        if child.starts:
            _last_records(loop.watch, records)


def _last_records(watch: Watch, records: Records) -> None:
    """Give the agent some time to take what there is."""
    until = watch.clock() + LAST_RECORDS
    while len(records) and (now := watch.clock()) < until:
        watch.heed(watch.ready(min(watch.due, until) - now))
        if (now := watch.clock()) >= watch.due:
            watch.step(now)


@contextmanager
def agent(server: ControlServer, child: Child | None = None) -> Iterator[Child]:
    """Have an agent as long as the server serves."""
    child = Child() if child is None else child
    watch = server.watch
    over = False  # a call that is due later must not start another

    def look(now: float) -> None:
        if over:
            return
        connected = child.look(now)
        if connected is not None:
            server.counts[AgentCounts.STARTS] += 1
            server.adopt(connected)
        watch.at(watch.clock() + LOOK, look)

    watch.at(watch.clock(), look)
    try:
        yield child
    finally:
        over = True
        server.close()
        child.close()


def _pages(items: Iterator[Any]) -> Pages:
    """Some items at a time; the result is what a generator of them returns."""
    page = []
    while True:
        try:
            page.append(next(items))
        except StopIteration as done:
            yield page
            return done.value
        if len(page) == PAGE:
            yield page
            page = []


def _results(rows: Any) -> Iterator[Result]:
    try:
        for target, well, reason in rows:
            yield _frozen(target), bool(well), str(reason)
    except (TypeError, ValueError):
        raise CommandError("results: a list of [target, well, reason]") from None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
