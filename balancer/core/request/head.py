"""The beginning of a connection's first request, put together from its segments.

Two ways to hold it. At first the balancer does not acknowledge: the client still owns the bytes,
would send them again, and its own packets are kept to be forwarded as they are. Once the balancer
has acknowledged (``own``), the bytes are its own to deliver, and only they are kept.
"""

from __future__ import annotations

from common.core import tcp_options
from common.core.segment import FIN, MASK, Segment, before

MAX_SEGMENTS = 64  # kept packets a head; a client's first flight is 10 to 12


class Head:
    """Bytes counted from the first one that the client sent (offset 0 = sequence number c + 1)."""

    __slots__ = (
        "arrived",
        "awaited",
        "confirmed",
        "data",
        "due",
        "fin_at",
        "kept_bytes",
        "later",
        "owned",
        "packets",
        "stamp",
        "tries",
        "window",
    )

    def __init__(self) -> None:
        self.data = bytearray()  # without a gap, from offset 0
        self.owned = 0  # so many of them we have acknowledged
        self.packets: dict[int, Segment] = {}  # the client's own, by offset, not acknowledged
        self.later: dict[int, bytes] = {}  # payloads behind a gap, by offset
        self.fin_at: int | None = None
        self.kept_bytes = 0  # of packets, data and later: what the table's bound counts
        self.arrived = 0  # segments since the last acknowledgment
        self.awaited = 0  # before there are so many bytes, the request cannot be whole
        self.due = 0.0  # when to acknowledge, if nothing more comes
        self.stamp: tuple[int, int] | None = None  # newest TSval, and the TSecr beside it
        self.window = 0
        self.confirmed = 0  # the bridge has all bytes below this offset
        self.tries = 0  # handoffs repeated for want of that

    def add(self, offset: int, segment: Segment) -> int | None:
        """Take in a segment with payload or FIN that starts at ``offset``; gives the bytes kept
        more than before (fewer, where it comes again with fewer options), or None where there is no
        room for another segment behind a gap."""
        payload, had = segment.payload, self.kept_bytes
        behind_gap = offset > len(self.data)
        if behind_gap and len(self.packets) + len(self.later) >= MAX_SEGMENTS:
            return None
        self.note(segment)
        if segment.flags & FIN:
            self.fin_at = offset + len(payload)
        if offset >= self.owned:
            known = self.packets.get(offset)
            if known is None or len(known.payload) <= len(payload):
                self.packets[offset] = segment
                self.kept_bytes += segment.cost - (known.cost if known else 0)
        if behind_gap:
            self._keep_later(offset, payload)
        else:
            self._append(offset, payload)
            self._close_gaps()
        self.arrived += 1
        return self.kept_bytes - had

    def note(self, segment: Segment) -> None:
        """Keep the newest timestamps and window that the client has sent."""
        stamp = tcp_options.timestamps(segment.options)
        if stamp is None or self.stamp is None or not before(stamp[0], self.stamp[0]):
            self.stamp, self.window = stamp, segment.window

    def own(self) -> int:
        """Take over all bytes without a gap; gives the bytes kept less than before."""
        self.owned = len(self.data)
        ours = [offset for offset in self.packets if offset < self.owned]
        freed = sum(self.packets.pop(offset).cost for offset in ours)
        self.kept_bytes -= freed
        self.arrived = 0
        return freed

    def forwardable(self) -> list[Segment]:
        """The client's own packets in order, the first of them at offset 0."""
        return [self.packets[offset] for offset in sorted(self.packets)]

    def behind_gap(self) -> list[Segment]:
        """Of the client's own packets those that something is missing before."""
        return [self.packets[at] for at in sorted(self.packets) if at > len(self.data)]

    def complete_fin(self) -> bool:
        """Whether the client has ended its side and nothing before the end is missing."""
        return self.fin_at is not None and self.fin_at <= len(self.data)

    def _keep_later(self, offset: int, payload: bytes) -> None:
        known = self.later.get(offset, b"")
        if len(payload) > len(known):
            self.later[offset] = payload
            self.kept_bytes += len(payload) - len(known)

    def _append(self, offset: int, payload: bytes) -> None:
        fresh = payload[len(self.data) - offset :]
        self.data += fresh
        self.kept_bytes += len(fresh)

    def _close_gaps(self) -> None:
        for offset in sorted(self.later):
            if offset > len(self.data):
                return
            payload = self.later.pop(offset)
            self.kept_bytes -= len(payload)
            self._append(offset, payload)


def offset_of(seq: int, first: int) -> int:
    """Bytes from ``first`` to ``seq``, negative where it comes before (modulo 2**32)."""
    distance = (seq - first) & MASK
    return distance if distance < 0x80000000 else distance - 0x100000000
