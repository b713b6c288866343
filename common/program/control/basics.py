"""The commands that both programs have: status, reload, log-level, stop."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from common import __version__
from common.adapters.control.server import Command, CommandError, Later, Pages
from common.program.control.table import command
from common.program.logs import PACKAGES
from common.program.loop import PacketLoop

LEVELS = ("debug", "info", "warning", "error")
MOST_WAITING = 32  # changes of the configuration
RELOADED = 0.02  # seconds between two looks at whether a reload is done

log = logging.getLogger(__name__)

Facts = Callable[[], dict[str, Any]]
Outcome = list[str]  # of a reload: the mistakes that prevented it, none where it is in force


Done = Callable[[Outcome], None]
Job = Callable[[Done], None]


class Reloading:
    """Changes of the configuration in force, one at a time. ``reload`` is the job that reads the
    file again, for the command and for SIGHUP. A job calls what it is given with the mistakes that
    prevented it, a line each, or with none once the new configuration is in force."""

    def __init__(self, reload: Job | None = None) -> None:
        self._reload = reload
        self._under_way = False
        self._waiting: deque[tuple[Job, list[Outcome]]] = deque()

    def begin(self, job: Job | None = None) -> list[Outcome]:
        """Start a job, the reload if none is given, or, where one is under way, after that; gives a
        list that will have its outcome in it. Raises CommandError where there is none to be had."""
        job = job or self._reload
        if job is None:
            raise CommandError("this program reads a changed configuration at its next start")
        if len(self._waiting) >= MOST_WAITING:
            raise CommandError(f"{MOST_WAITING} changes of the configuration wait already")
        found: list[Outcome] = []
        self._waiting.append((job, found))
        if not self._under_way:
            self._next()
        return found

    def change(self, job: Job) -> Pages:
        """For a command: do the job, and say it is done, or raise CommandError."""
        found = self.begin(job)
        while not found:
            yield Later(RELOADED)
        if found[0]:
            raise CommandError("; ".join(found[0]))

    def signalled(self) -> None:
        """For SIGHUP: the log has the outcome."""
        if self._reload is not None and not self._waiting:
            self.begin()

    def _next(self) -> None:
        job, found = self._waiting.popleft()
        self._under_way = True

        def done(mistakes: Outcome) -> None:
            self._under_way = False
            for mistake in mistakes:
                log.warning("the configuration in force stays as it is: %s", mistake)
            if not mistakes:
                log.info("a changed configuration is in force")
            found.append(mistakes)
            if self._waiting:
                self._next()

        job(done)


def commands(loop: PacketLoop, name: str, facts: Facts, reloading: Reloading) -> dict[str, Command]:
    """``facts`` are the program's own in `status`."""
    began = time.monotonic()

    def status() -> dict[str, Any]:
        counts = loop.counts()
        return {
            "program": name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - began, 3),
            "log_level": level(),
            **facts(),
            "gauges": {**loop.core.gauges(), **loop.waiting()},
            "counts": {str(key): count for key, count in sorted(counts.items()) if count},
        }

    def reload() -> Pages:
        found = reloading.begin()
        while not found:
            yield Later(RELOADED)
        return {"mistakes": found[0]}

    def stop() -> str:
        loop.stop()
        return f"{name} stops"

    def log_level(level: str) -> str:
        if level not in LEVELS:
            raise CommandError(f"level: {level!r} is wrong; right would be one of {LEVELS}")
        set_level(loop, level)
        return f"{name} logs from {level} on"

    return {
        "status": command(status),
        "reload": command(reload),
        "stop": command(stop),
        "log-level": command(log_level),
    }


def level() -> str:
    """The least important messages that are logged."""
    return logging.getLevelName(logging.getLogger(PACKAGES[0]).getEffectiveLevel()).lower()


def set_level(loop: PacketLoop, level: str) -> None:
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())
    loop.core.ledger.verbose = level == "debug"
    log.info("log level: %s", level)
