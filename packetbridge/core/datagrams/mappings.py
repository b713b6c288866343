"""Where mappings are kept: in a table of the program's own, or, where the kernel translates, in its
maps, which then are all that there is (packetbridge/program/fast_mappings.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from common.core.ledger import Ledger, Occurrence
from packetbridge.core.datagrams.mapping import Mapping
from packetbridge.core.entry import Entry

AT_ONCE = 256  # looked at in one go, so that packets are not held up
LOOK_EVERY = 1.0  # seconds between two goes, where there is nothing more to look at


class Counted(Occurrence):
    """Mappings begun by Python, and ended."""

    OPENED = "mappings_opened"
    EXPIRED = "mappings_expired"  # by silence
    EVICTED = "mappings_evicted"  # the longest idle, for a newer one
    OTHER_PORT = "mappings_other_port"  # given another source port, their own being another VIP's


class Mappings(Protocol):
    """``limit`` bounds them: the one that was idle longest makes room. One that has been idle for
    ``idle`` seconds does not count any more, and goes."""

    def configure(self, entries: Iterable[Entry], limit: int, idle: float) -> None:
        """Have these ways in, the bound and the time from now on."""

    def of_client(self, entry: Entry, inbound: bytes, now: float) -> Mapping | None:
        """That of a client's datagram."""

    def of_server(self, outbound: bytes, now: float) -> Mapping | None:
        """That of a server's datagram."""

    def add(self, mapping: Mapping) -> None:
        """Keep a new one, in place of any that does not count any more."""

    def heard(self, mapping: Mapping, now: float) -> None:
        """A datagram of it came, which the kernel has not seen."""

    def remove(self, mapping: Mapping) -> None:
        """Forget it."""

    def every(self, now: float) -> Iterator[Mapping]:
        """All that count, little by little."""

    def step(self, now: float) -> float:
        """Let some of those go that do not count any more; when to be called again."""

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        """Leave to Python those that are ``wanted``, of those that begin from now on, or are
        renewed; None: no more."""

    def renew(self, mapping: Mapping) -> None:
        """Have what ``withhold`` said hold for one that there is."""

    def __len__(self) -> int:
        """How many there are, or were when they were last looked through."""


class Table:
    """A table of the program's own."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # by the server's key: the one that was heard of last is at the end
        self._outbound: OrderedDict[bytes, Mapping] = OrderedDict()
        self._inbound: dict[tuple[Entry, bytes], Mapping] = {}
        self._limit, self._idle = 1, 0.0

    def __len__(self) -> int:
        return len(self._outbound)

    def configure(self, entries: Iterable[Entry], limit: int, idle: float) -> None:
        self._limit, self._idle = limit, idle
        while len(self) > limit:
            self._evict()

    def of_client(self, entry: Entry, inbound: bytes, now: float) -> Mapping | None:
        return self._counting(self._inbound.get((entry, inbound)), now)

    def of_server(self, outbound: bytes, now: float) -> Mapping | None:
        return self._counting(self._outbound.get(outbound), now)

    def add(self, mapping: Mapping) -> None:
        for before in (
            self._outbound.get(mapping.outbound),
            self._inbound.get((mapping.entry, mapping.inbound)),
        ):
            if before is not None:
                self.remove(before)
        while len(self) >= self._limit:
            self._evict()
        self._outbound[mapping.outbound] = mapping
        self._inbound[mapping.entry, mapping.inbound] = mapping
        mapping.entry.figures.flows += 1

    def heard(self, mapping: Mapping, now: float) -> None:
        mapping.seen = now
        self._outbound.move_to_end(mapping.outbound)

    def remove(self, mapping: Mapping) -> None:
        if self._outbound.pop(mapping.outbound, None) is not None:
            del self._inbound[mapping.entry, mapping.inbound]
            mapping.entry.figures.flows -= 1

    def every(self, now: float) -> Iterator[Mapping]:
        keys = list(self._outbound)  # 2 ms for 100,000: those that come meanwhile are left out
        for key in keys:
            mapping = self.of_server(key, now)
            if mapping is not None:
                yield mapping

    def step(self, now: float) -> float:
        for _ in range(AT_ONCE):
            mapping = next(iter(self._outbound.values()), None)
            if mapping is None or mapping.seen + self._idle > now:
                return now + LOOK_EVERY
            self.remove(mapping)
            self._ledger.counts[Counted.EXPIRED] += 1
        return now

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        """They are Python's all of them."""

    def renew(self, mapping: Mapping) -> None:
        pass

    def _counting(self, mapping: Mapping | None, now: float) -> Mapping | None:
        return None if mapping is None or now - mapping.seen > self._idle else mapping

    def _evict(self) -> None:
        self.remove(next(iter(self._outbound.values())))
        self._ledger.counts[Counted.EVICTED] += 1
