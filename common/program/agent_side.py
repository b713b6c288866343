"""The packet process's side of its agent: the commands that only it may give, and its keeping.

See common.program.agent for what they are. Each is answered between packets, so none does much:
what may be long is a generator, a page at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from common.adapters.agent.child import Child
from common.adapters.control.server import Command, CommandError, ControlServer, Pages
from common.core.access_records import AccessRecords
from common.core.agent_settings import AgentSettings, encode
from common.core.bridge_health import Result
from common.core.ledger import Occurrence
from common.core.metrics import Row
from common.program.control import basics

PAGE = 64  # items in one go: some milliseconds at most
LOOK = 1.0  # seconds between two looks at whether the agent lives
MOST_RECORDS = 512  # of the access log in one answer


class AgentCounts(Occurrence):
    """Of the process beside the packets."""

    STARTS = "agent_starts"
    RECORDS_LOST = "access_log_lost"


class Program(Protocol):
    """What a program tells its agent, and hears from it. Times are monotonic seconds."""

    def settings(self) -> AgentSettings:
        """What it is to do now; their generation is another whenever they are."""

    def checked(self, results: Iterable[Result], now: float) -> int:
        """What checks have found; gives the settings' generation as it is now."""

    def health(self, now: float) -> dict[str, Any]:
        """What is answered at /health."""

    def metrics(self, now: float) -> Iterator[Row]:
        """All samples."""


def commands(
    program: Program, records: AccessRecords, reopened: Callable[[], int]
) -> dict[str, Command]:
    """The agent's commands. ``reopened`` counts how often the access log was to be opened anew."""

    def settings(_: Mapping[str, Any]) -> Pages:
        yield from _pages(encode(program.settings()))

    def health(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results = list(_results(arguments.get("results", [])))
        generation = program.checked(results, time.monotonic())
        return {"generation": generation, "log_level": basics.level()}

    def agent_health(_: Mapping[str, Any]) -> dict[str, Any]:
        return program.health(time.monotonic())

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
def agent(server: ControlServer, child: Child | None = None) -> Iterator[Child]:
    """Have an agent as long as the server serves."""
    child = Child() if child is None else child
    watch = server.watch
    over = False

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


def _pages(items: Iterable[Any]) -> Pages:
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


def _results(rows: Any) -> Iterator[Result]:
    try:
        for target, well, reason in rows:
            yield _frozen(target), bool(well), str(reason)
    except (TypeError, ValueError):
        raise CommandError("results: a list of [target, well, reason]") from None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
