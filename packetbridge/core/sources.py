"""Which address and port the server sees as a client's, and with which first numbers."""

from __future__ import annotations

from collections.abc import Container, Iterator

from common.core.segment import MASK
from packetbridge.core.entry import Entry

TRIES = 64  # ports looked at before a connection is refused: bounded work, whatever is in use
UNPRIVILEGED = 1024


class Sources:
    """Hands out 6-byte sources (address, port) that are not in use towards a server."""

    def __init__(self) -> None:
        self._next: dict[tuple[bytes, tuple[int, int]], int] = {}

    def source(
        self, entry: Entry, client: bytes, port: int, used: Container[bytes]
    ) -> bytes | None:
        """A source for the ``client`` (4 bytes) with ``port``; ``used`` holds the keys of the
        server's packets to sources in use. None where TRIES ports in a row are."""
        if entry.own_source:
            return self._own(entry, used)
        source = client + port.to_bytes(2, "big")
        if _reply_key(entry, source) not in used:
            return source
        for candidate in _neighbours(port):
            source = client + candidate.to_bytes(2, "big")
            if _reply_key(entry, source) not in used:
                return source
        return None

    def _own(self, entry: Entry, used: Container[bytes]) -> bytes | None:
        """In turn through the reserved range: a port rests as long as it can before its next
        connection, whose predecessor the server may still hold in TIME-WAIT."""
        low, high = entry.ports
        turn = (entry.address, entry.ports)
        at = self._next.get(turn, 0)
        for _ in range(TRIES):
            candidate = low + at
            at = (at + 1) % (high - low + 1)
            source = entry.address + candidate.to_bytes(2, "big")
            if _reply_key(entry, source) not in used:
                self._next[turn] = at
                return source
        self._next[turn] = at
        return None


def own_isn(wall: float, port: int) -> int:
    """An initial sequence number of the bridge's own: a clock of 4 microseconds (RFC 9293 section
    3.4.1), so that each connection of a port begins after the one before it has ended."""
    return (int(wall * 250_000) + port * 0x9E3779B1) & MASK


def own_stamp(wall: float) -> int:
    """The TSval of the bridge's own clock: milliseconds, one clock for all connections, so that a
    port's next connection is later than its last (RFC 6191)."""
    return int(wall * 1000) & MASK


def _neighbours(port: int) -> Iterator[int]:
    """Others than ``port`` spread over the unprivileged range: with it, TRIES in all."""
    span = 0x10000 - UNPRIVILEGED
    start = max(port - UNPRIVILEGED, 0)
    for turn in range(1, TRIES):
        yield UNPRIVILEGED + (start + turn * 4099) % span


def _reply_key(entry: Entry, source: bytes) -> bytes:
    key = entry.server_key
    return key[:4] + source[:4] + key[4:] + source[4:]
