"""The numbers that both programs have: what became of packets, and what was counted besides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from common.core.ledger import Occurrence, Outcome
from common.core.metrics import Family, Row


class ProcessNumbers(NamedTuple):
    """Of this process, as the system has them: seconds, bytes, and seconds since 1970."""

    cpu: float
    resident: int
    files: int
    most_files: int
    threads: int
    started: float


class Build(NamedTuple):
    """What is running."""

    version: str
    python: str
    datapath: str


class ProgramMetrics:
    """``program`` is "balancer" or "packetbridge"; ``served`` names the outcomes of packets that
    were good for something: all others are drops. ``shown`` are counters with families of their
    own, and left out here.

    A drop that has not happened yet is shown as 0, so that the first is seen to come.
    """

    def __init__(self, program: str, served: Collection[str], shown: Collection[str] = ()) -> None:
        self._program = program
        self._served, self._shown = frozenset(served), frozenset(shown)
        prefix = f"l3dsr_{program}_"
        self._build = Family(
            f"{prefix}build_info",
            "gauge",
            "Always 1; the labels say what is running, and on which data path.",
            Build._fields,
        )
        self._received = Family(
            f"{prefix}packets_received_total",
            "counter",
            "Packets that the kernel's queues gave to the program.",
        )
        self._dropped = Family(
            f"{prefix}packets_dropped_total",
            "counter",
            "Packets that the program dropped, by reason.",
            ("reason",),
        )
        self._taken = Family(
            f"{prefix}packets_served_total",
            "counter",
            "Packets that were not dropped, by what became of them.",
            ("outcome",),
        )
        self._lost = Family(
            f"{prefix}queue_lost_total",
            "counter",
            "Packets that the kernel dropped because its queue for the program was full.",
            ("queue",),
        )
        self._events = Family(
            f"{prefix}events_total", "counter", "What was counted besides packets.", ("event",)
        )
        self._process = {
            "cpu": Family(
                "process_cpu_seconds_total", "counter", "Processor time of the packet process."
            ),
            "resident": Family(
                "process_resident_memory_bytes", "gauge", "Memory of the packet process."
            ),
            "files": Family("process_open_fds", "gauge", "Open files of the packet process."),
            "most_files": Family("process_max_fds", "gauge", "Files that it may have open."),
            "threads": Family("process_threads", "gauge", "Threads of the packet process."),
            "started": Family(
                "process_start_time_seconds",
                "gauge",
                "When the packet process began, in seconds since 1970.",
            ),
        }
        self.families = (
            self._build,
            self._received,
            self._dropped,
            self._taken,
            self._lost,
            self._events,
            *self._process.values(),
        )

    def rows(
        self, numbers: Mapping[str, int], process: ProcessNumbers, build: Build
    ) -> Iterator[Row]:
        """``numbers`` are all counters by name."""
        yield self._build.row(1, *build)
        yield self._received.row(numbers.get("packets", 0))
        for queue, name in _LOST.items():
            if name in numbers or queue == "packets":
                yield self._lost.row(numbers.get(name, 0), queue)
        outcomes, occurrences = (_names(kind, self._program) for kind in (Outcome, Occurrence))
        for name in sorted(outcomes - self._shown):
            if name in self._served:
                yield self._taken.row(numbers.get(name, 0), name)
            else:
                yield self._dropped.row(numbers.get(name, 0), name)
        for name in sorted(occurrences - self._shown - _OWN):
            if name in numbers:
                yield self._events.row(numbers[name], name)
        for key, family in self._process.items():
            yield family.row(getattr(process, key))


_LOST = {  # by queue
    "packets": "kernel_queue_lost",
    "syns": "kernel_syn_queue_lost",
    "datagrams": "kernel_datagram_queue_lost",
}
_OWN = {"packets", *_LOST.values()}  # families of their own


def _names(kind: type[Outcome] | type[Occurrence], program: str) -> set[str]:
    """The names that a program counts outcomes or occurrences by."""
    return {
        str(name)
        for listed in kind.__subclasses__()
        if listed.__module__.partition(".")[0] in (program, "common")
        for name in listed
    }
