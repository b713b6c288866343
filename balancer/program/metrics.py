"""The balancer's numbers for Prometheus; docs/metrics.md explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from balancer.core import config
from balancer.core.health import Checked, PoolHealth
from balancer.core.times import Times
from common.core.histogram import TIMES
from common.core.metrics import Family, Row
from common.core.program_metrics import Build, ProcessNumbers, ProgramMetrics

# Outcomes of packets that were good for something: what docs/counters.md does not call dropped.
SERVED = frozenset({
    "steered", "datagram_steered", "syn", "bare_ack", "head_kept", "answer_accepted",
    "answer_ended", "backend_refused", "client_closed", "client_closing", "client_reset",
    "icmp_steered", "icmp_to_host",
})  # fmt: skip


class MemberNumbers(Checked, Protocol):
    """A backend of a pool, as it is shown."""

    reason: str
    weight: int
    pending: int
    given: int
    draining: bool


class PoolNumbers(Protocol):
    """A pool likewise."""

    configured: config.Pool

    @property
    def members(self) -> Iterable[MemberNumbers]: ...


_P = "l3dsr_balancer_"
FLOWS = Family(f"{_P}flows", "gauge", "Connections in progress that a bridge has.")
MAPPINGS = Family(f"{_P}mappings", "gauge", "UDP clients, or their flows, that have a backend.")
WAITING = Family(f"{_P}flows_waiting", "gauge", "Connections whose request has not come yet.")
OPENING = Family(
    f"{_P}flows_opening", "gauge", "Connections not inspected, whose client has said nothing yet."
)
BUFFERED = Family(
    f"{_P}request_buffer_bytes", "gauge", "Bytes kept of requests that are not whole."
)
FORWARDED = Family(
    f"{_P}forwarded_packets_total",
    "counter",
    "Packets sent on, by direction and by who did it (path: python or kernel).",
    ("direction", "path"),
)
BYTES = Family(
    f"{_P}forwarded_bytes_total",
    "counter",
    "Bytes of IP in these.",
    ("direction", "path"),
)
DATAGRAMS = Family(
    f"{_P}forwarded_datagrams_total",
    "counter",
    "UDP datagrams sent on to bridges, by who did it (path: python or kernel).",
    ("path",),
)
DATAGRAM_BYTES = Family(
    f"{_P}forwarded_datagram_bytes_total", "counter", "Bytes of IP in these.", ("path",)
)
HANDSHAKES = Family(
    f"{_P}syns_answered_total", "counter", "SYNs answered with a cookie, by who did it.", ("path",)
)
COUNTED = {
    "connections": Family(
        f"{_P}connections_total", "counter", "Connections whose client has proven its address."
    ),
    "handoffs": Family(
        f"{_P}handoffs_total", "counter", "Connections handed to a bridge for the first time."
    ),
    "handoffs_repeated": Family(
        f"{_P}handoffs_repeated_total", "counter", "Handoffs sent again, having had no effect."
    ),
    "redispatched": Family(
        f"{_P}redispatches_total", "counter", "Connections given to another backend, as one failed."
    ),
    "mappings_made": Family(
        f"{_P}mappings_made_total", "counter", "UDP clients, or their flows, that got a backend."
    ),
    "mappings_moved": Family(
        f"{_P}mappings_moved_total",
        "counter",
        "UDP clients, or their flows, that lost their backend as it was down or gone.",
    ),
    "mappings_evicted": Family(
        f"{_P}mappings_evicted_total",
        "counter",
        "UDP clients, or their flows, forgotten in favour of newer ones, the table being full.",
    ),
}
HANDSHAKE = Family(
    f"{_P}handshake_seconds",
    "histogram",
    "From the SYN-ACK to its acknowledgment: the client's round trip.",
    (),
    TIMES,
)
HANDOFF = Family(
    f"{_P}handoff_seconds",
    "histogram",
    "From the handshake's end until the request was handed to a bridge.",
    (),
    TIMES,
)
_WHO = ("pool", "backend")
UP = Family(
    f"{_P}backend_up", "gauge", "1 where checks say that the backend is well, else 0.", _WHO
)
DRAINING = Family(
    f"{_P}backend_draining", "gauge", "1 where the backend is being drained, else 0.", _WHO
)
WEIGHT = Family(f"{_P}backend_weight", "gauge", "The backend's weight.", _WHO)
PENDING = Family(
    f"{_P}backend_flows",
    "gauge",
    "Connections in progress with the backend, and UDP clients that have it.",
    _WHO,
)
GIVEN = Family(
    f"{_P}backend_handoffs_total",
    "counter",
    "Connections given to the backend, those that another could not serve included.",
    _WHO,
)
CHANGES = Family(
    f"{_P}backend_state_changes_total", "counter", "Times that it went up or down.", _WHO
)
FAILURES = Family(
    f"{_P}backend_failures_total",
    "counter",
    "Checks of the backend that went wrong, and connections, by kind.",
    (*_WHO, "kind"),
)

_SHOWN = {
    *COUNTED, "steered_bytes", "fast_packets", "fast_bytes", "fast_syns",
    "datagram_bytes", "fast_datagrams", "fast_datagram_bytes",
}  # fmt: skip
PROGRAM = ProgramMetrics("balancer", SERVED, _SHOWN)
FAMILIES = (
    *PROGRAM.families,
    FLOWS, WAITING, OPENING, BUFFERED, MAPPINGS, FORWARDED, BYTES, DATAGRAMS, DATAGRAM_BYTES,
    HANDSHAKES, *COUNTED.values(), HANDSHAKE, HANDOFF, UP, DRAINING, WEIGHT, PENDING, GIVEN,
    CHANGES, FAILURES,
)  # fmt: skip


def rows(
    numbers: Mapping[str, int],
    pools: Mapping[str, PoolNumbers],
    health: PoolHealth,
    times: Times,
    process: ProcessNumbers,
    build: Build,
) -> Iterator[Row]:
    """``numbers`` are all that is counted, and the tables' sizes, by name."""
    yield from PROGRAM.rows(numbers, process, build)
    yield FLOWS.row(numbers.get("flows", 0))
    yield WAITING.row(numbers.get("waiting", 0))
    yield OPENING.row(numbers.get("opening", 0))
    yield BUFFERED.row(numbers.get("buffered_bytes", 0))
    yield MAPPINGS.row(numbers.get("mappings", 0))
    for path, datagrams, size in (
        ("python", "datagram_steered", "datagram_bytes"),
        ("kernel", "fast_datagrams", "fast_datagram_bytes"),
    ):
        yield DATAGRAMS.row(numbers.get(datagrams, 0), path)
        yield DATAGRAM_BYTES.row(numbers.get(size, 0), path)
    for path, packets, size, syns in (
        ("python", "steered", "steered_bytes", "syn"),
        ("kernel", "fast_packets", "fast_bytes", "fast_syns"),
    ):
        yield FORWARDED.row(numbers.get(packets, 0), "to_bridge", path)
        yield BYTES.row(numbers.get(size, 0), "to_bridge", path)
        yield HANDSHAKES.row(numbers.get(syns, 0), path)
    for name, family in COUNTED.items():
        yield family.row(numbers.get(name, 0))
    yield HANDSHAKE.times(times.handshake)
    yield HANDOFF.times(times.handoff)
    for name, pool in pools.items():
        for member in pool.members:
            yield from _member(name, member, health)
    for (name, backend, kind), count in list(health.failures.items()):
        yield FAILURES.row(count, name, backend, kind)


def _member(pool: str, member: MemberNumbers, health: PoolHealth) -> Iterator[Row]:
    who = pool, member.name
    judge = health.judge(*who)
    yield UP.row(int(member.up), *who)
    yield DRAINING.row(int(member.draining), *who)
    yield WEIGHT.row(member.weight, *who)
    yield PENDING.row(member.pending, *who)
    yield GIVEN.row(member.given, *who)
    yield CHANGES.row(0 if judge is None else judge.changes, *who)
