"""Timestamps in the name of a server that has none.

A client that was promised timestamps may drop segments without them (RFC 7323 section 3.2), so the
bridge adds the option to what such a server sends. It took care when it opened the connection that
the server's segments leave the room.
"""

from __future__ import annotations

from common.core import tcp_options
from common.core.segment import MASK, Segment, before

ADDED = 12  # bytes of the option, which each of the server's segments grows by


class Stamper:
    """``value`` is the balancer's TSval, which the clock goes on from at ``now``; ``echo`` the
    newest TSval that the client has sent."""

    __slots__ = ("_since", "_value", "echo")

    def __init__(self, value: int, echo: int, now: float) -> None:
        self._value = value
        self._since = now
        self.echo = echo

    def note(self, segment: Segment) -> None:
        """Keep the newest TSval of a client's segment."""
        stamps = tcp_options.timestamps(segment.options)
        if stamps is not None and not before(stamps[0], self.echo):
            self.echo = stamps[0]

    def option(self, now: float) -> bytes:
        """12 bytes; the clock ticks in milliseconds, as the balancer's does."""
        value = (self._value + int((now - self._since) * 1000)) & MASK
        return tcp_options.encode_timestamps(value, self.echo)
