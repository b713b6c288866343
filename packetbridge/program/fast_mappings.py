"""UDP mappings in the kernel's maps (packetbridge/fastpath/datagrams.h): it makes and refreshes
them by itself, and Python looks there for those of the datagrams that come up to it."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from common.adapters.bpf.layout import Layout
from common.adapters.bpf.object import Map, Object
from common.core.ledger import Occurrence, Outcome
from common.core.segment import reverse
from packetbridge.core.datagrams.mapping import Mapping, outbound
from packetbridge.core.datagrams.mappings import AT_ONCE, Counted
from packetbridge.core.entry import Entry
from packetbridge.program.fast_carriage import CARRIED, DOOR_KEY, Carriage, door_key

NANOSECONDS = 10**9
ROUND = 10.0  # seconds between two looks through all,
PAUSE = 0.005  # and between two parts of one

DOOR = Layout(
    "door",
    [
        ("server", "4s"),
        ("vip", "4s"),
        ("server_port", "2s"),
        ("up_hop", "B"),
        ("down_hop", "B"),
        ("onward", "B"),
        ("asks", "B"),
        ("own", "B"),
        ("known", "B"),
        ("mark", "I"),
        ("pad", "I"),
        ("idle", "Q"),
    ],
)
ANSWER = Layout(
    "answer",
    [
        ("seen", "Q"),
        ("began", "Q"),
        ("idle", "Q"),
        ("to", "12s"),
        ("bridge", "4s"),
        ("dscp", "B"),
        ("hop", "B"),
        ("onward", "B"),
        ("slow", "B"),
        ("pad", "I"),
    ],
)
GUISE_KEY = Layout("guise_key", [("tuple", "12s"), ("dscp", "B"), ("pad", "3s")])
_BEGINNING = struct.Struct("=QQQ12s4sB")  # of ANSWER: seen to dscp
LAYOUTS = (DOOR_KEY, DOOR, ANSWER, GUISE_KEY, CARRIED)
KEPT = {"doors": DOOR, "mappings": ANSWER, "guises": GUISE_KEY}
"""The maps that outlive the program, with what tells one version of them from another."""


class Answer(NamedTuple):
    """struct answer, read."""

    seen: int
    began: int
    idle: int
    to: bytes
    bridge: bytes
    dscp: int
    hop: int
    onward: int
    slow: int
    pad: int


class KernelMappings:
    """Implements packetbridge.core.datagrams.mappings.Mappings. The bound is that of the maps."""

    def __init__(self, loaded: Object, counts: Counter[Outcome | Occurrence]) -> None:
        self._doors = loaded.map("doors", DOOR_KEY.size, DOOR.size)
        self.records: Map = loaded.map("mappings", 12, ANSWER.size)
        self._guises = loaded.map("guises", GUISE_KEY.size, 12)
        self._carriage = Carriage(loaded)
        self._watching = loaded.map("watching", 4, 4)
        self._counts = counts
        self._entries: dict[tuple[bytes, int, int], Entry] = {}
        self._asks: set[Entry] = set()  # some of whose clients have another guise
        self._idle = 0.0
        self._count = 0
        self._looked: Counter[Entry] = Counter()
        self._looking: Iterator[tuple[bytes, bytes]] | None = None
        self._withheld: Callable[[Mapping], bool] | None = None

    def __len__(self) -> int:
        return self._count

    def configure(self, entries: Iterable[Entry], limit: int, idle: float) -> None:
        self._idle = idle
        known = list(entries)
        self._asks = {entry for entry in known if entry.own_source}
        self._entries = {(e.address, e.dscp, e.port): e for e in reversed(known)}
        for key, _ in self._guises.items():
            entry = self._entry(key[4:8], key[12], key[10:12])
            if entry is not None:
                self._asks.add(entry)
        doors = {door_key(entry): entry for entry in self._entries.values() if _passes(entry)}
        for stale in set(self._doors.keys()) - doors.keys():
            self._doors.remove(stale)
        self._carriage.follow(doors)
        for entry in doors.values():
            self._open(entry)

    def of_client(self, entry: Entry, inbound: bytes, now: float) -> Mapping | None:
        guise = None
        if entry in self._asks:
            guise = self._guises.get(GUISE_KEY.pack(inbound, entry.dscp, b""))
        if guise is None and entry.own_source:
            return None
        plain = outbound(entry, inbound[:4] + inbound[8:10])
        mapping = self.of_server(plain if guise is None else reverse(guise), now)
        same = mapping is not None and mapping.entry is entry and mapping.inbound == inbound
        return mapping if same else None

    def of_server(self, outbound: bytes, now: float) -> Mapping | None:
        record = self.records.get(outbound)
        return None if record is None else self._mapping(outbound, record, now)

    def add(self, mapping: Mapping) -> None:
        self.heard(mapping, mapping.seen)
        if mapping.is_plain:
            return
        entry = mapping.entry
        self._guises.put(
            GUISE_KEY.pack(mapping.inbound, entry.dscp, b""), reverse(mapping.outbound)
        )
        if entry not in self._asks:
            self._asks.add(entry)
            self._open(entry)

    def heard(self, mapping: Mapping, now: float) -> None:
        mapping.seen = now
        entry = mapping.entry
        mapping.slow = self._withheld is not None and self._withheld(mapping)
        record = ANSWER.pack(
            int(now * NANOSECONDS),
            int(mapping.began * NANOSECONDS),
            int(self._idle * NANOSECONDS),
            mapping.addressing.down(mapping.outbound),
            entry.address,
            entry.dscp,
            entry.hops[1],
            not entry.local,
            mapping.slow or not _passes(entry),
            0,
        )
        self.records.put(mapping.outbound, record)

    def remove(self, mapping: Mapping) -> None:
        self.records.remove(mapping.outbound)
        if not mapping.is_plain:
            self._guises.remove(GUISE_KEY.pack(mapping.inbound, mapping.entry.dscp, b""))

    def every(self, now: float) -> Iterator[Mapping]:
        for key, record in self.records.items():
            mapping = self._mapping(key, record, now)
            if mapping is not None:
                yield mapping

    def step(self, now: float) -> float:
        """Look through some: what has ended goes, the others are counted."""
        if self._looking is None:
            self._looked, self._looking = Counter(), self.records.items()
        some = list(islice(self._looking, AT_ONCE))
        looked, entries, at = self._looked, self._entries, int(now * NANOSECONDS)
        for key, record in some:  # without objects, as there may be a quarter of a million
            seen, _, idle, to, bridge, dscp = _BEGINNING.unpack_from(record)
            entry = entries.get((bridge, dscp, to[8] << 8 | to[9]))
            if at - seen <= idle and entry is not None:
                looked[entry] += 1
            elif self._is_over(key, now):
                self._forget(key, record)
        if some:
            return now + PAUSE
        self._looking = None
        self._count = self._looked.total()
        for entry in self._entries.values():
            entry.figures.flows = self._looked[entry]
        self._carriage.read()
        return now + ROUND

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        """Until the end of it Python sees every new client first."""
        self._withheld = wanted
        self._watching.put(bytes(4), (wanted is not None).to_bytes(4, sys.byteorder))
        for entry in self._entries.values():
            self._open(entry)

    def renew(self, mapping: Mapping) -> None:
        self.heard(mapping, mapping.seen)

    def _is_over(self, key: bytes, now: float) -> bool:
        """Whether it still is: it may have been used since it was read."""
        record = self.records.get(key)
        return record is not None and self._mapping(key, record, now) is None

    def _forget(self, key: bytes, record: bytes) -> None:
        answer = Answer(*ANSWER.unpack(record))
        self.records.remove(key)
        to = answer.to
        inbound = to[4:8] + answer.bridge + to[10:] + to[8:10]
        guise = GUISE_KEY.pack(inbound, answer.dscp, b"")
        if self._guises.get(guise) == reverse(key):
            self._guises.remove(guise)
        self._counts[Counted.EXPIRED] += 1

    def _mapping(self, key: bytes, record: bytes, now: float) -> Mapping | None:
        """None where it does not count any more: it is too old, or its way in is gone."""
        answer = Answer(*ANSWER.unpack(record))
        to, seen = answer.to, answer.seen / NANOSECONDS
        if now - seen > answer.idle / NANOSECONDS:
            return None
        entry = self._entry(answer.bridge, answer.dscp, to[8:10])
        if entry is None or entry.vip != to[:4] or entry.server_key != key[:4] + key[8:10]:
            return None
        mapping = Mapping(entry, to[4:8] + answer.bridge + to[10:] + to[8:10], key, seen)
        mapping.began = answer.began / NANOSECONDS
        mapping.slow = bool(answer.slow)
        return mapping

    def _entry(self, address: bytes, dscp: int, port: bytes) -> Entry | None:
        return self._entries.get((address, dscp, int.from_bytes(port, "big")))

    def _open(self, entry: Entry) -> None:
        """Have the kernel take what is steered to a way in."""
        if not _passes(entry):
            return
        record = DOOR.pack(
            entry.server,
            entry.vip,
            entry.server_port.to_bytes(2, "big"),
            *entry.hops,
            not entry.local,
            entry in self._asks,
            entry.own_source,
            entry.removed or self._withheld is not None,
            entry.mark,
            0,
            int(self._idle * NANOSECONDS),
        )
        self._doors.put(door_key(entry), record)


def _passes(entry: Entry) -> bool:
    """What a local server sends to its own host's address passes no interface."""
    return not (entry.own_source and entry.local)
