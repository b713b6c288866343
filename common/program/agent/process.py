"""The agent at work: its parts, and the settings that they follow."""

from __future__ import annotations

import asyncio
import logging
import socket

import aiohttp
from prometheus_client.registry import Collector

from common.adapters.agent.asking import session
from common.adapters.agent.endpoint import Endpoint
from common.adapters.agent.packet_process import CommandError, PacketProcess
from common.core.agent_settings import AgentSettings, decode
from common.program import logs
from common.program.agent.checking import Checking
from common.program.agent.numbers import Numbers
from common.program.agent.one_flow import OneFlow
from common.program.agent.reporting import Reports
from common.program.agent.showing import Showing
from common.program.agent.writing import AccessLog

AGAIN = 1.0  # seconds before settings are asked for again that could not be had

log = logging.getLogger(__name__)


async def work(connected: socket.socket) -> None:
    """Be the agent of the packet process at the other end, until that closes the socket."""
    process = await PacketProcess.at(connected)
    try:
        async with session() as http:
            await _Agent(process, http).run()
    finally:
        process.close()


class _Agent:
    def __init__(self, process: PacketProcess, http: aiohttp.ClientSession) -> None:
        self._process = process
        self._reports = Reports(process, self._log_from)
        self._checking = Checking(http, self._reports.found)
        self._access = AccessLog(process)
        self._settings = AgentSettings("", 0)
        self._level = ""
        showing = Showing(process, lambda: self._settings, self._own)
        self._endpoint = Endpoint(
            {
                "/health": showing.health,
                "/metrics": showing.metrics,
                "/flow": OneFlow(process, http).answer,
            }
        )
        self._numbers = Numbers(self._checking, self._reports, self._access, self._endpoint)

    def _own(self) -> list[Collector]:
        return self._numbers.collectors(self._settings)

    async def run(self) -> None:
        """Until the packet process is gone. An error of ours ends the agent, which is started
        again: better than one that does half of its work."""
        gone = asyncio.create_task(self._process.gone.wait())
        parts = [
            asyncio.create_task(part)
            for part in (self._follow(), self._access.run(), self._endpoint.run())
        ]
        try:
            done, _ = await asyncio.wait([gone, *parts], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._checking.close()
            for task in (gone, *parts):
                task.cancel()
            await asyncio.gather(gone, *parts, return_exceptions=True)

    async def _follow(self) -> None:
        while not self._process.gone.is_set():
            try:
                settings = decode((await self._process.collect("agent-settings"))[0])
            except CommandError as error:
                log.debug("the agent has no settings: %s", error)
                await asyncio.sleep(AGAIN)
                continue
            self._apply(settings)
            await self._reports.next_generation(settings.generation)

    def _log_from(self, level: str) -> None:
        if level != self._level:
            self._level = level
            logs.setup(level)

    def _apply(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._log_from(settings.log_level)
        self._endpoint.listen(frozenset(settings.listen))
        self._access.follow(settings.access_log, settings.access_format)
        self._checking.follow((*settings.bridges, *settings.servers))
