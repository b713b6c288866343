"""The access log: records out of the packet process, lines into the file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from common.adapters.agent.access_file import AccessFile
from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.core.access_lines import as_json, as_text

MOST = 256  # records asked for at once
PAUSE = 0.2  # seconds, where there were fewer

Format = Callable[[Mapping[str, Any]], str]
FORMATS: Mapping[str, Format] = {"json": as_json, "text": as_text}

log = logging.getLogger(__name__)


class AccessLog:
    """Writes to the file that it is told; without one it asks for nothing."""

    def __init__(self, process: PacketProcess) -> None:
        self._process = process
        self._file: AccessFile | None = None
        self._format: Format = as_json
        self._reopened: int | None = None
        self._changed = asyncio.Event()
        self._earlier = [0, 0]  # lines of files before this one: written, lost

    @property
    def written(self) -> int:
        return self._earlier[0] + (self._file.written if self._file else 0)

    @property
    def lost(self) -> int:
        return self._earlier[1] + (self._file.lost if self._file else 0)

    def follow(self, path: str, form: str) -> None:
        """Write to the file at ``path`` from now on ('' for none), json or text."""
        self._format = FORMATS[form]
        if self._file is not None and self._file.path != path:
            self._earlier = [self.written, self.lost]
            self._file.close()
            self._file = None
        if path and self._file is None:
            self._file = AccessFile(path)
        self._changed.set()

    async def run(self) -> None:
        """Write until the packet process is gone."""
        while not self._process.gone.is_set():
            if self._file is None:
                self._changed.clear()
                await self._changed.wait()
            elif await self._some(self._file) < MOST:
                await asyncio.sleep(PAUSE)

    async def _some(self, file: AccessFile) -> int:
        """Write what there is, up to a bound; gives how many lines."""
        try:
            answer = await self._process.ask("access-log", most=MOST)
        except CommandError as error:
            log.debug("no records for the access log: %s", error)
            return 0
        lines = [self._format(record) for record in answer["records"]]
        # A disk may take its time: in a thread, so that checks do not wait for it.
        await asyncio.to_thread(self._put, file, lines, answer["reopen"])
        return len(lines)

    def _put(self, file: AccessFile, lines: list[str], reopen: int) -> None:
        if reopen != self._reopened:
            if self._reopened is not None:
                file.reopen()
            self._reopened = reopen
        if lines:
            file.write(lines)
