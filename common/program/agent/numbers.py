"""The agent's own numbers, beside those of the packet process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector

from common.adapters.agent.endpoint import Endpoint
from common.adapters.agent.queue_depths import queue_depths
from common.core.agent_settings import AgentSettings
from common.core.metrics import Family, Row
from common.program.agent.checking import Checking
from common.program.agent.exposition import Snapshot
from common.program.agent.reporting import Reports
from common.program.agent.writing import AccessLog


class Families:
    """By the program's name: both programs have an agent."""

    def __init__(self, program: str) -> None:
        prefix = f"l3dsr_{program}_"
        agent = f"{prefix}agent_"
        self.queue = Family(
            f"{prefix}queue_packets",
            "gauge",
            "Packets that wait in the kernel's queue for the program.",
            ("queue",),
        )
        self.checks = Family(
            f"{agent}checks_total",
            "counter",
            "Active health checks, by kind (bridge, tcp, http) and result (good, bad).",
            ("kind", "result"),
        )
        self.dropped = Family(
            f"{agent}results_dropped_total",
            "counter",
            "Results of checks that the packet process did not take.",
        )
        self.lines = Family(
            f"{agent}access_log_lines_total",
            "counter",
            "Lines for the access log, by result (written, lost).",
            ("result",),
        )
        self.connections = Family(
            f"{agent}http_connections", "gauge", "Open connections to /health and /metrics."
        )
        self.evicted = Family(
            f"{agent}http_evicted_total",
            "counter",
            "Connections to /health and /metrics that were ended for newer ones.",
        )

    def all(self) -> list[Family]:
        return [
            self.queue,
            self.checks,
            self.dropped,
            self.lines,
            self.connections,
            self.evicted,
        ]


class Numbers:
    """Of the parts of one agent."""

    def __init__(
        self, checking: Checking, reports: Reports, access: AccessLog, endpoint: Endpoint
    ) -> None:
        self._checking, self._reports = checking, reports
        self._access, self._endpoint = access, endpoint
        self._process: dict[str, Collector] = {}

    def collectors(self, settings: AgentSettings) -> list[Collector]:
        program = settings.program
        families = Families(program)
        if program not in self._process:
            prefix = f"l3dsr_{program}_agent"
            self._process[program] = ProcessCollector(namespace=prefix, registry=None)
        rows = self._rows(families, dict(settings.queues))
        return [Snapshot(families.all(), rows), self._process[program]]

    def _rows(self, families: Families, queues: dict[int, str]) -> Iterator[Row]:
        for number, waiting in queue_depths(queues).items():
            yield families.queue.row(waiting, queues[number])
        for (kind, well), count in self._checking.counts.items():
            yield families.checks.row(count, kind, "good" if well else "bad")
        yield families.dropped.row(self._reports.dropped)
        yield families.lines.row(self._access.written, "written")
        yield families.lines.row(self._access.lost, "lost")
        yield families.connections.row(self._endpoint.connections)
        yield families.evicted.row(self._endpoint.evicted)
