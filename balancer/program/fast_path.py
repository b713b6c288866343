"""The balancer's fast path in the kernel: balancer/fastpath/steer.bpf.c and its records."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from balancer.core.datagrams.fast_path import FastDatagrams, FastMappings
from balancer.core.fast_path import Arrival, Fast, Former
from balancer.core.flow import Flow, State
from balancer.core.service import Service
from balancer.program.fast_mappings import MAPPED, KernelMappings
from common.adapters.aside import aside
from common.adapters.bpf import attachment
from common.adapters.bpf.layout import Layout
from common.adapters.bpf.object import Map, Ran, Totals, load_adopting
from common.core.ledger import Occurrence, Outcome
from common.program.datapath import attach, pin_directory, remove_pins

OBJECT = Path(__file__).parent.parent / "fastpath" / "steer.bpf.o"
NAME = "l3dsr-balancer"  # of the filters at tc
# Packets and bytes, as the object's enum has them; the first include the second.
TOTALS = (
    (Fast.PACKETS, Fast.BYTES),
    (Fast.UNROUTED, ""),
    (Fast.ANSWERED, ""),
    (Fast.ARRIVED, ""),
    (FastDatagrams.PACKETS, FastDatagrams.BYTES),
    (FastDatagrams.UNROUTED, ""),
)
SERVICES = 4096  # at most; the handshakes of more than that are Python's
EXPECTED = 65536  # new incarnations of live flows that may be awaited at once

KEY_BYTES = 12
INCARNATION_BYTES = 16
RECORD = Layout(
    "steered",
    [
        ("seen", "Q"),
        ("packets", "Q"),
        ("bytes", "Q"),
        ("bridge", "4s"),
        ("first", "I"),
        ("b", "I"),
        ("handoff_bytes", "I"),
        ("dscp_bits", "B"),
        ("suspect", "B"),
        ("answered", "B"),
        ("pad", "5s"),
    ],
)
ENDPOINT_BYTES = 8
TERMS = Layout(
    "terms",
    [
        ("cookie_key", "16s"),
        ("until", "Q"),
        ("wall_offset", "Q"),
        ("mss", "H"),
        ("window", "H"),
        ("scale", "B"),
        ("sack", "B"),
        ("timestamps", "B"),
        ("pad", "B"),
    ],
)
ARRIVAL = Layout(
    "arrival",
    [("key", "12s"), ("c", "I"), ("b", "I"), ("round_trip", "I"), ("seen", "Q")],
)
NANOSECONDS = 10**9


class KernelPath:
    """Implements balancer.core.fast_path.FastPath. Raises BpfError where the kernel refuses it."""

    answers = True

    def __init__(
        self,
        flows: int,
        counts: Counter[Outcome | Occurrence],
        directory: Path | None = None,
        mappings: int = 1,
    ) -> None:
        """``flows`` and ``mappings`` are how many there may be, ``directory`` is where records are
        kept beyond this process; nowhere if None."""
        pins = {} if directory is None else _pins(directory)
        sizes = {"flows": flows, "expected": EXPECTED, "services": SERVICES, "mappings": mappings}
        self._object = load_adopting(OBJECT, [RECORD, TERMS, ARRIVAL, MAPPED], sizes, pins)
        self._services: Map = self._object.map("services", ENDPOINT_BYTES, TERMS.size)
        self._arrivals = self._object.ring("arrivals")
        self.records: Map = self._object.map("flows", KEY_BYTES, RECORD.size)
        self._expected: Map = self._object.map("expected", INCARNATION_BYTES, 1)
        records = self._object.map("mappings", KEY_BYTES, MAPPED.size)
        self.mappings: FastMappings = KernelMappings(records, counts)
        self._totals = Totals(self._object, TOTALS)
        self._counts = counts
        self._answered: set[bytes] = set()  # endpoints of services
        self._due: list[Flow] = []
        self._withheld: Callable[[Flow], bool] | None = None
        self._earlier = self.records.keys()  # of an earlier run

    def answer(
        self, services: Sequence[Service], key: bytes, until: float, wall_offset: float
    ) -> None:
        halves = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
        native = b"".join(half.to_bytes(8, sys.byteorder) for half in halves)
        answered, self._answered = self._answered, {service.endpoint for service in services}
        for endpoint in answered - self._answered:
            self._services.remove(endpoint + bytes(2))
        for service in services:
            at = service.endpoint + bytes(2)
            times = (round(seconds * NANOSECONDS) for seconds in (until, wall_offset))
            offered = service.window_scale, service.sack, service.timestamps
            terms = TERMS.pack(native, *times, service.mss, service.window, *offered, 0)
            self._services.put(at, terms)

    def arrivals(self) -> list[Arrival]:
        found = []
        for record in self._arrivals.take():
            key, c, b, round_trip, seen = ARRIVAL.unpack(record)
            found.append(Arrival(key, c, b, round_trip, seen / NANOSECONDS))
        return found

    def steer(self, flow: Flow, at_once: bool = False) -> None:
        if flow.fast or at_once:
            self._write(flow)
        else:
            self._due.append(flow)

    def expect(self, flow: Flow, b: int) -> None:
        self._expected.put(flow.key + b.to_bytes(4, "big"), b"\1")
        if flow.fast:
            self._write(flow)

    def settle(self) -> None:
        due, self._due = self._due, []
        for flow in due:
            if flow.state is State.HANDED:
                self._write(flow)

    def recall(self, flow: Flow) -> None:
        record = self.records.get(flow.key) if flow.fast else None
        if record is not None:
            seen, *_, answered, _ = RECORD.unpack(record)
            flow.seen = max(flow.seen, seen / NANOSECONDS)
            flow.answered = flow.answered or bool(answered)

    def forget(self, flow: Flow) -> None:
        if flow.fast:
            self.records.remove(flow.key)
            flow.fast = False

    def withhold(self, wanted: Callable[[Flow], bool] | None) -> None:
        self._withheld = wanted

    def renew(self, flow: Flow) -> None:
        if flow.state is State.HANDED and not flow.closing and flow.head is None:
            self._write(flow)

    def drop(self, key: bytes) -> None:
        self.records.remove(key)

    def former(self, key: bytes) -> Former | None:
        record = self.records.get(key)
        return None if record is None else _former(key, record)

    def formers(self, most: int) -> list[Former] | None:
        keys = list(islice(self._earlier, most))
        if not keys:
            return None
        found = [self.former(key) for key in keys]
        return [former for former in found if former is not None]

    def gauges(self) -> dict[str, int]:
        return self._totals.read()

    def run(self, program: str, packet: bytes, context: bytes = b"", times: int = 1) -> Ran:
        """What a program makes of a packet with its Ethernet header: see Object.run."""
        return self._object.run(program, packet, context, times)

    def attach(self) -> None:
        """Steer what comes in, on every Ethernet interface that takes it."""
        attach(NAME, self.hooks())

    def hooks(self) -> list[attachment.Hook]:
        return [attachment.Hook(self._object.program("steer"), attachment.INGRESS)]

    def detach(self) -> None:
        clear()

    def _write(self, flow: Flow) -> None:
        assert flow.target is not None, "a handed flow has a target"
        if self._withheld is not None and self._withheld(flow):
            self.recall(flow)
            self.forget(flow)
            return
        seen = packets = size = 0
        if flow.fast and (old := self.records.get(flow.key)) is not None:
            seen, packets, size, *_ = RECORD.unpack(old)
        steering = flow.target.steering
        record = RECORD.pack(
            seen, packets, size, steering.bridge, flow.first, flow.b, flow.handoff_bytes,
            steering.dscp_bits, flow.suspect_until > 0, flow.answered, b"",
        )  # fmt: skip
        flow.fast = self.records.put(flow.key, record)
        if not flow.fast:
            self.records.remove(flow.key)  # what it was: better none than one that is out of date
            self._counts[Fast.TABLE_FULL] += 1


def _former(key: bytes, record: bytes) -> Former:
    seen, _, _, bridge, first, b, handoff_bytes, _, suspect, _, _ = RECORD.unpack(record)
    return Former(key, bridge, first, b, handoff_bytes, seen / NANOSECONDS, bool(suspect))


def _pins(directory: Path) -> dict[str, Path]:
    return {
        "flows": directory / f"flows-{RECORD.fingerprint}",
        "mappings": directory / f"mappings-{MAPPED.fingerprint}",
        "expected": directory / "expected",  # who was answered before a restart comes after it
    }


def directory() -> Path:
    return pin_directory("balancer")


def clear() -> None:
    """Remove what this run or an earlier one left in the kernel."""
    aside(attachment.detach, NAME)
    remove_pins(directory())
