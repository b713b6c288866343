"""What a flow needs only until its server connection stands and the held bytes are there."""

from __future__ import annotations

from common.core import tcp_options
from common.core.handoff import Handoff
from common.core.segment import FIN, MASK, PSH, Segment, before

MAX_HELD = 64  # segments of one flow; a client's first flight is 10 to 12


class Opening:
    """``held`` are the client's segments by sequence number, the handoff's first among them;
    ``owed`` the sequence number after the last byte that nobody but the bridge will send again."""

    __slots__ = (
        "asked_twice",
        "due",
        "echo",
        "handoff",
        "held",
        "held_bytes",
        "isn",
        "owed",
        "stamp",
        "stamped",
        "syn_ack",
        "tries",
        "until",
        "window",
    )

    def __init__(self, handoff: Handoff, first: Segment) -> None:
        stamps = tcp_options.timestamps(first.options)
        self.handoff = handoff
        self.held: dict[int, Segment] = {}
        self.held_bytes = 0
        self.isn = 0  # ours towards the server
        self.owed: int | None = None
        self.stamp: int | None = None if stamps is None else stamps[0]  # newest TSval
        self.echo: int = 0 if stamps is None else stamps[1]  # the balancer's TSval
        self.asked_twice = False  # for the server's SYN-ACK, so that it takes no sample of it
        self.stamped = False  # the SYN offered timestamps
        self.syn_ack: tuple[int, int] | None = None  # the server's ISN and TSval
        self.due = 0.0  # when the latest SYN is given up,
        self.until = 0.0  # and when the server is
        self.tries = 0  # timer runs: of the SYN, then of owed bytes
        self.window = first.window

    def hold(self, segment: Segment) -> int | None:
        """Keep a segment with payload or FIN; gives the bytes kept more than before (fewer, where
        it comes again with fewer options), None where it cannot be kept."""
        known = self.held.get(segment.seq)
        self.note(segment)
        if known is not None and len(known.payload) >= len(segment.payload):
            return 0
        if known is None and len(self.held) >= MAX_HELD:
            return None
        more = segment.cost - (known.cost if known is not None else 0)
        self.held[segment.seq] = segment
        self.held_bytes += more
        return more

    def note(self, segment: Segment) -> None:
        """Keep the newest timestamp and window of the client."""
        stamps = tcp_options.timestamps(segment.options)
        if stamps is None or self.stamp is None:
            self.window = segment.window
        elif not before(stamps[0], self.stamp):
            self.stamp, self.window = stamps[0], segment.window

    def in_order(self, first: int) -> list[Segment]:
        """What is held, by sequence number counted from ``first``."""
        held = list(self.held.values())
        if len(held) > 1:
            held.sort(key=lambda segment: (segment.seq - first) & MASK)
        return held

    def is_one_request(self) -> bool:
        """Whether all that the client had to say, it seems, came in one segment."""
        return [segment.flags & (PSH | FIN) for segment in self.held.values()] == [PSH]

    def owe(self, segment: Segment) -> None:
        """The balancer has acknowledged these bytes to the client: they are ours to deliver."""
        end = (segment.seq + len(segment.payload) + (segment.flags & FIN)) & MASK
        if self.owed is None or before(self.owed, end):
            self.owed = end

    def next_lacking(self, first: int) -> int:
        """The sequence number of the first byte that is not held, from ``first`` on."""
        reached = first
        for segment in self.in_order(first):
            if before(reached, segment.seq):
                break
            if before(reached, segment.end):
                reached = segment.end
        return reached
