"""Results on their way to the packet process, and its word that there are new settings."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.core.bridge_health import MOST_WORDS, Result

MOST = 40  # results in one command: its line is bounded
WAITING = 65536  # results that wait; of more the oldest are dropped, as newer ones follow
POLL = 1.0  # seconds at most between two commands: how late new settings are noticed
PAUSE = 0.02  # seconds: what comes together goes together

log = logging.getLogger(__name__)


class Reports:
    """``dropped`` counts results that the packet process did not take in time."""

    def __init__(self, process: PacketProcess, level: Callable[[str], None]) -> None:
        """``level`` is told which messages are logged, when the packet process says so."""
        self._process = process
        self._level = level
        self._waiting: deque[Result] = deque()
        self._some = asyncio.Event()
        self.dropped = 0

    def found(self, results: Iterable[Result]) -> None:
        """Have these reported."""
        self._waiting.extend(results)
        while len(self._waiting) > WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._some.set()

    async def next_generation(self, known: int) -> None:
        """Report until the packet process names another generation than ``known``."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._some.wait(), POLL)
            if self._some.is_set():
                await asyncio.sleep(PAUSE)
            self._some.clear()
            while True:
                generation = await self._send()
                if self._process.gone.is_set() or generation not in (None, known):
                    return
                if generation is None:
                    await asyncio.sleep(POLL)
                elif not self._waiting:
                    break

    async def _send(self) -> int | None:
        """Some results, or none; gives the generation, None where there is no answer."""
        some = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        rows = [[target, well, reason[:MOST_WORDS]] for target, well, reason in some]
        try:
            answer = await self._process.ask("health", results=rows)
        except CommandError as error:
            self.dropped += len(some)
            log.debug("results of %s checks are dropped: %s", len(some), error)
            return None
        self._level(answer["log_level"])
        return int(answer["generation"])
