"""Datagrams in the kernel: the map of balancer/fastpath/datagrams.h."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice

from balancer.core.datagrams.fast_path import FastDatagrams, FormerMapping
from balancer.core.datagrams.mapping import Mapping
from common.adapters.bpf.layout import Layout
from common.adapters.bpf.object import Map
from common.core.ledger import Occurrence, Outcome

MAPPED = Layout(
    "mapped",
    [
        ("seen", "Q"),
        ("packets", "Q"),
        ("bytes", "Q"),
        ("bridge", "4s"),
        ("dscp_bits", "B"),
        ("pad", "3s"),
    ],
)
NANOSECONDS = 10**9


class KernelMappings:
    """Implements balancer.core.datagrams.fast_path.FastMappings."""

    def __init__(self, records: Map, counts: Counter[Outcome | Occurrence]) -> None:
        self.records = records
        self._counts = counts
        self._due: list[Mapping] = []
        self._withheld: Callable[[Mapping], bool] | None = None
        self._earlier = records.keys()  # of an earlier run

    def steer(self, mapping: Mapping) -> None:
        self._due.append(mapping)

    def settle(self) -> None:
        if self._due:
            due, self._due = self._due, []
            for mapping in due:
                if not mapping.gone:
                    self._write(mapping)

    def recall(self, mapping: Mapping) -> None:
        if mapping.fast:
            _learn(mapping, self.records.get(mapping.key))

    def forget(self, mapping: Mapping) -> None:
        if mapping.fast:
            _learn(mapping, self.records.take(mapping.key))
            mapping.fast = False

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        self._withheld = wanted

    def renew(self, mapping: Mapping) -> None:
        if not mapping.gone:
            self._write(mapping)

    def drop(self, key: bytes) -> None:
        self.records.remove(key)

    def former(self, key: bytes) -> FormerMapping | None:
        record = self.records.get(key)
        if record is None:
            return None
        seen, _, _, bridge, *_ = MAPPED.unpack(record)
        return FormerMapping(key, bridge, seen / NANOSECONDS)

    def formers(self, most: int) -> list[FormerMapping] | None:
        keys = list(islice(self._earlier, most))
        if not keys:
            return None
        found = [self.former(key) for key in keys]
        return [former for former in found if former is not None]

    def _write(self, mapping: Mapping) -> None:
        seen = packets = size = 0
        if mapping.fast:
            old = self.records.get(mapping.key)
            _learn(mapping, old)
            if old is not None:
                seen, packets, size, *_ = MAPPED.unpack(old)
        if self._withheld is not None and self._withheld(mapping):
            self._take_back(mapping)
            return
        steering = mapping.target.steering
        record = MAPPED.pack(seen, packets, size, steering.bridge, steering.dscp_bits, b"")
        mapping.fast = self.records.put(mapping.key, record)
        if not mapping.fast:
            self._take_back(mapping)  # what it was: better none than one out of date
            self._counts[FastDatagrams.TABLE_FULL] += 1

    def _take_back(self, mapping: Mapping) -> None:
        """Leave a mapping to Python, which goes on with what the kernel has counted of it."""
        self.records.remove(mapping.key)
        mapping.fast = False
        mapping.datagrams += mapping.fast_datagrams
        mapping.size += mapping.fast_size
        mapping.fast_datagrams = mapping.fast_size = 0


def _learn(mapping: Mapping, record: bytes | None) -> None:
    if record is not None:
        seen, mapping.fast_datagrams, mapping.fast_size, *_ = MAPPED.unpack(record)
        mapping.seen = max(mapping.seen, seen / NANOSECONDS)
