"""The bridge's numbers for Prometheus; docs/metrics.md explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Protocol

from common.core.histogram import TIMES, Histogram
from common.core.metrics import Family, Row
from common.core.program_metrics import Build, ProcessNumbers, ProgramMetrics
from packetbridge.core.config import Backend
from packetbridge.core.health import ServerHealth

# Outcomes of packets that were good for something: what docs/counters.md does not call dropped.
SERVED = frozenset({
    "spliced_up", "spliced_down", "direct", "handoff_taken", "held", "ack_before_spliced",
    "backend_syn_ack", "backend_time_wait", "backend_refused", "forget", "client_reset",
    "icmp_translated", "icmp_of_server", "icmp_of_server_host", "clock_told", "datagrams_up",
    "datagrams_down",
})  # fmt: skip


class FiguresRead(Protocol):
    """What is counted of a way in: see packetbridge.core.figures."""

    flows: int
    handoffs: int
    opened: int
    refused: int
    silent: int
    resets: int
    connect: Histogram
    first_byte: Histogram
    up_bytes: int
    down_bytes: int


class EntryRead(Protocol):
    """A way in: see packetbridge.core.entry."""

    address: bytes
    port: int
    dscp: int
    up: bool
    reason: str
    draining: bool

    @property
    def protocol(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def server_name(self) -> str: ...

    @property
    def figures(self) -> FiguresRead: ...


class Ways:
    """Which configured backend a way in is of."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._backends: dict[tuple[str, bytes, int, int], Backend] = {
            (backend.protocol, IPv4Address(backend.address).packed, backend.port, dscp): backend
            for backend in backends
            for dscp in backend.dscps or (_ANY,)
        }

    def backend(self, entry: EntryRead) -> Backend | None:
        """None where it is not configured any more."""
        at = entry.protocol, entry.address, entry.port
        return self._backends.get((*at, entry.dscp)) or self._backends.get((*at, _ANY))


_ANY = 0  # no DSCP of ours

_P = "l3dsr_packetbridge_"
FLOWS = Family(f"{_P}flows", "gauge", "Connections in progress with a server.")
MAPPINGS = Family(f"{_P}mappings", "gauge", "UDP clients whose answers are translated.")
HELD = Family(f"{_P}held_bytes", "gauge", "Bytes kept for servers that have not answered yet.")
FORWARDED = Family(
    f"{_P}forwarded_packets_total",
    "counter",
    "Packets translated, of TCP and UDP, by direction (to_server, to_client) and by who did it "
    "(path).",
    ("direction", "path"),
)
BYTES = Family(
    f"{_P}forwarded_bytes_total", "counter", "Bytes of IP in these.", ("direction", "path")
)
_WHICH = ("address", "port", "dscp", "server", "protocol")
UP = Family(
    f"{_P}server_up", "gauge", "1 where the server's check says that it is well, else 0.", _WHICH
)
DRAINING = Family(f"{_P}server_draining", "gauge", "1 where it is being drained, else 0.", _WHICH)
CHANGES = Family(
    f"{_P}server_state_changes_total", "counter", "Times that it went up or down.", _WHICH
)
PENDING = Family(
    f"{_P}server_flows",
    "gauge",
    "Connections, or UDP clients, in progress with the server.",
    _WHICH,
)
HANDOFFS = Family(f"{_P}server_handoffs_total", "counter", "Connections taken over.", _WHICH)
OPENED = Family(
    f"{_P}server_flows_opened_total", "counter", "Of these, those that the server took.", _WHICH
)
FAILURES = Family(
    f"{_P}server_failures_total",
    "counter",
    "Those that it refused, did not answer (silent), or reset before its first byte (reset).",
    (*_WHICH, "kind"),
)
SERVER_BYTES = Family(
    f"{_P}server_bytes_total",
    "counter",
    "Bytes of IP, by direction; those that the kernel carries come when a connection is over.",
    (*_WHICH, "direction"),
)
CONNECT = Family(
    f"{_P}handoff_seconds",
    "histogram",
    "From the handoff's arrival until the server took the connection.",
    _WHICH,
    TIMES,
)
FIRST_BYTE = Family(
    f"{_P}first_byte_seconds",
    "histogram",
    "From the handoff's arrival until the server's first byte.",
    _WHICH,
    TIMES,
)
_SHOWN = {
    f"{name}_{way}{unit}"
    for way in ("up", "down")
    for name, unit in (
        ("spliced", "_bytes"),
        ("datagrams", "_bytes"),
        ("fast_packets", ""),
        ("fast_bytes", ""),
        ("fast_datagrams", ""),
        ("fast_datagram_bytes", ""),
    )
}
PROGRAM = ProgramMetrics("packetbridge", SERVED, _SHOWN)
FAMILIES = (
    *PROGRAM.families,
    FLOWS, MAPPINGS, HELD, FORWARDED, BYTES, UP, DRAINING, CHANGES, PENDING, HANDOFFS, OPENED,
    FAILURES, SERVER_BYTES, CONNECT, FIRST_BYTE,
)  # fmt: skip


def rows(
    numbers: Mapping[str, int],
    ways: Ways,
    entries: Iterable[EntryRead],
    health: ServerHealth,
    process: ProcessNumbers,
    build: Build,
) -> Iterator[Row]:
    """``numbers`` are all that is counted, and the tables' sizes, by name."""
    yield from PROGRAM.rows(numbers, process, build)
    yield FLOWS.row(numbers.get("flows", 0))
    yield HELD.row(numbers.get("held_bytes", 0))
    yield MAPPINGS.row(numbers.get("mappings", 0))
    for direction, way in (("to_server", "up"), ("to_client", "down")):
        for path, packets, sizes in (
            (
                "python",
                (f"spliced_{way}", f"datagrams_{way}"),
                (f"spliced_{way}_bytes", f"datagrams_{way}_bytes"),
            ),
            (
                "kernel",
                (f"fast_packets_{way}", f"fast_datagrams_{way}"),
                (f"fast_bytes_{way}", f"fast_datagram_bytes_{way}"),
            ),
        ):
            yield FORWARDED.row(_sum(numbers, packets), direction, path)
            yield BYTES.row(_sum(numbers, sizes), direction, path)
    for entry in entries:
        backend = ways.backend(entry)
        if backend is not None:
            yield from _entry(entry, backend, health)


def _sum(numbers: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(numbers.get(name, 0) for name in names)


def _entry(entry: EntryRead, backend: Backend, health: ServerHealth) -> Iterator[Row]:
    which = (
        backend.address,
        str(backend.port),
        str(entry.dscp),
        entry.server_name,
        entry.protocol,
    )
    judge, figures = health.judge(backend), entry.figures
    yield UP.row(int(entry.up), *which)
    yield DRAINING.row(int(entry.draining), *which)
    yield CHANGES.row(0 if judge is None else judge.changes, *which)
    yield PENDING.row(figures.flows, *which)
    yield HANDOFFS.row(figures.handoffs, *which)
    yield OPENED.row(figures.opened, *which)
    yield FAILURES.row(figures.refused, *which, "refused")
    yield FAILURES.row(figures.silent, *which, "silent")
    yield FAILURES.row(figures.resets, *which, "reset")
    yield SERVER_BYTES.row(figures.up_bytes, *which, "to_server")
    yield SERVER_BYTES.row(figures.down_bytes, *which, "to_client")
    yield CONNECT.times(figures.connect, *which)
    yield FIRST_BYTE.times(figures.first_byte, *which)
