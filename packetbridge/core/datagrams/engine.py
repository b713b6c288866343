"""Each datagram from a balancer or a server in, a verdict out; and the ICMP errors that quote them.

A verdict is as everywhere: see packetbridge.core.engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.core.datagram import MIN_DATAGRAM, Datagram
from common.core.ledger import DROP, Ledger, Occurrence, Outcome
from packetbridge.core.config import Limits, Timeouts
from packetbridge.core.context import Context, Served
from packetbridge.core.datagrams import quotations, translation
from packetbridge.core.datagrams.mapping import Mapping, outbound
from packetbridge.core.datagrams.mappings import Counted, Mappings, Table
from packetbridge.core.entry import Entry
from packetbridge.core.opener import Refusal
from packetbridge.core.sources import Sources
from packetbridge.core.ways import Ways


class Passed(Outcome):
    """What became of a datagram."""

    UP = "datagrams_up"  # translated, to the server
    DOWN = "datagrams_down"  # translated, to the client
    TOO_LARGE = "datagram_too_large"  # for a queue: what comes of it is cut off
    NO_ENTRY = "datagram_no_entry"  # no backend for that address, DSCP and port
    FORMER = "datagram_former_entry"  # of a client that a backend which is gone does not know


class Carried(Occurrence):
    """Of IP, in the datagrams that Python has translated."""

    UP = "datagrams_up_bytes"
    DOWN = "datagrams_down_bytes"


class Datagrams:
    """``mappings`` are the kernel's, where it translates."""

    def __init__(
        self,
        context: Context,
        ways: Ways,
        limits: Limits,
        timeouts: Timeouts,
        mappings: Mappings | None,
    ) -> None:
        self._context = context
        self._ledger: Ledger = context.ledger
        self._ways = ways
        self._entries = ways.datagrams
        self._sources = Sources()
        self.in_kernel = mappings is not None
        self.mappings: Mappings = Table(context.ledger) if mappings is None else mappings
        self.due = 0.0  # when `timers` is to be called
        self.configure(limits, timeouts)

    def configure(self, limits: Limits, timeouts: Timeouts) -> None:
        """Bounds, time-outs and ways in from now on."""
        self._limits, self._timeouts = limits, timeouts
        self.follow()

    def follow(self) -> None:
        """The ways in may be others."""
        known = [entry for entry in self._ways.every() if entry.protocol == "udp"]
        self.mappings.configure(known, self._limits.mappings, self._timeouts.udp)

    def packet(self, data: bytes, now: float) -> bytes | None:
        """The verdict on a datagram; raises MalformedError."""
        datagram = None
        if data[0] != 0x45 or len(data) < MIN_DATAGRAM:
            datagram = Datagram(data)
            key = datagram.key
        else:
            key = data[12:24]
        entry = self._entries.get((key[4:8], data[1] >> 2, int.from_bytes(key[10:], "big")))
        if len(data) < int.from_bytes(data[2:4], "big"):
            return self._ledger.drop(Passed.TOO_LARGE, data)
        if entry is not None:
            return self._up(entry, key, data, datagram, now)
        return self._down(key, data, datagram, now)

    def icmp(self, data: bytes, now: float) -> bytes | None:
        """The verdict on an ICMP error that quotes a datagram; raises MalformedError."""
        return quotations.translate(data, self._ways, self.mappings, self._ledger, now)

    def timers(self, now: float) -> None:
        """Let go of what is over."""
        if now >= self.due:
            self.due = self.mappings.step(now)

    def end(self, mapping: Mapping) -> None:
        """Forget a mapping: the client's next datagram makes another."""
        self.mappings.remove(mapping)

    def of_server(self, outbound: bytes, now: float) -> Mapping | None:
        """The mapping of a server's datagram with that key."""
        return self.mappings.of_server(outbound, now)

    def every(self, now: float) -> Iterator[Mapping]:
        """All mappings, little by little."""
        return self.mappings.every(now)

    def _up(
        self, entry: Entry, key: bytes, data: bytes, datagram: Datagram | None, now: float
    ) -> bytes | None:
        mapping = self.mappings.of_client(entry, key, now)
        if mapping is None:
            datagram = datagram or Datagram(data)  # nothing is kept for what is not sound
            mapping = self._open(entry, key, data, now)
            if mapping is None:
                return DROP
        to = mapping.addressing
        translated = translation.up(to, data)
        if translated is None:
            translated = translation.up_any(to, datagram or Datagram(data))
        self.mappings.heard(mapping, now)
        counts, size = self._ledger.counts, len(data)
        counts[Passed.UP] += 1
        counts[Carried.UP] += size
        entry.figures.up_bytes += size
        if entry.own_source:  # the kernel would take it for a martian: see Bridge._upward
            self._context.out.append((entry.mark, translated))
            return DROP
        return translated

    def _down(self, key: bytes, data: bytes, datagram: Datagram | None, now: float) -> bytes | None:
        mapping = self.mappings.of_server(key, now)
        if mapping is None:
            if key[:4] + key[8:10] in self._ways.datagram_servers:
                return self._ledger.passed(Served.DIRECT, data)
            return self._ledger.drop(Passed.NO_ENTRY, data)
        to = mapping.addressing
        translated = translation.down(to, data)
        if translated is None:
            translated = translation.down_any(to, datagram or Datagram(data))
        self.mappings.heard(mapping, now)
        counts, size = self._ledger.counts, len(data)
        counts[Carried.DOWN] += size
        mapping.entry.figures.down_bytes += size
        return self._ledger.passed(Passed.DOWN, translated)

    def _open(self, entry: Entry, key: bytes, data: bytes, now: float) -> Mapping | None:
        """A new mapping, with the client's own address and port where these are free, and where
        the server is to see them."""
        if entry.removed:
            self._ledger.drop(Passed.FORMER, data)
            return None
        client, port = key[:4], int.from_bytes(key[8:10], "big")
        source = self._sources.source(entry, client, port, _Used(self.mappings, now))
        if source is None:
            self._ledger.drop(Refusal.NO_PORT, data)
            return None
        mapping = Mapping(entry, key, outbound(entry, source), now)
        counts = self._ledger.counts
        counts[Counted.OPENED] += 1
        counts[Counted.OTHER_PORT] += not entry.own_source and not mapping.is_plain
        entry.figures.opened += 1
        self.mappings.add(mapping)
        return mapping


class _Used:
    """The server's keys that mappings have now."""

    def __init__(self, mappings: Mappings, now: float) -> None:
        self._mappings, self._now = mappings, now

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._mappings.of_server(key, self._now) is not None
