"""The active checks: a task for each, which asks, tells what it found, and waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import aiohttp

from common.adapters.agent import asking
from common.core.agent_settings import BridgeCheck, ServerCheck
from common.core.bridge_health import BridgeView, Result

AT_ONCE = 256  # checks under way at most: each has a descriptor

Check = BridgeCheck | ServerCheck


class Checking:
    """Keeps checking what it is told to; ``found`` is given each check's results. ``counts`` are of
    checks, by kind and whether they went well."""

    def __init__(self, http: aiohttp.ClientSession, found: Callable[[list[Result]], None]) -> None:
        self._http = http
        self._found = found
        self._tasks: dict[Check, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self.counts: Counter[tuple[str, bool]] = Counter()

    def follow(self, checks: Iterable[Check]) -> None:
        """Check these from now on, and nothing else; those that are the same go on as they were."""
        wanted = dict.fromkeys(checks)
        for check in self._tasks.keys() - wanted.keys():
            self._tasks.pop(check).cancel()
        for check in wanted:
            if check not in self._tasks:
                self._tasks[check] = asyncio.create_task(self._keep_asking(check))

    def close(self) -> None:
        self.follow(())

    async def _keep_asking(self, check: Check) -> None:
        view = BridgeView(check) if isinstance(check, BridgeCheck) else None
        due = check.rhythm.first_check(time.monotonic(), random.random())
        while True:
            await asyncio.sleep(due - time.monotonic())
            async with self._room:
                now = time.monotonic()
                results = await (self._server(check) if view is None else self._bridge(view))
            self._found(results)
            due = check.rhythm.next_check(now, random.random())

    async def _bridge(self, view: BridgeView) -> list[Result]:
        try:
            entries = await asking.bridge(self._http, view.check)
        except asking.AskError as error:
            self.counts["bridge", False] += 1
            return view.failed(str(error))
        self.counts["bridge", True] += 1
        return view.answered(entries)

    async def _server(self, check: Check) -> list[Result]:
        assert isinstance(check, ServerCheck), "bridges have a view"
        trouble = await asking.server(self._http, check)
        self.counts[check.kind, not trouble] += 1
        return [(check.target, not trouble, trouble)]
