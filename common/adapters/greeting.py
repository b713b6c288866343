"""What a server says first on a connection on which its client says nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from common.adapters.exchange import Connection, Failure, failure, words

MOST = 512  # bytes that are read: RFC 5321 section 4.5.3.1.5 has a reply's line no longer


@dataclass(slots=True)
class Greeting:
    """Seconds since the handshake until the ``first_byte`` came; None: it did not. ``data`` is what
    came, to the end of the first line at most, ``failure`` what prevented more, in ``words``."""

    first_byte: float | None = None
    data: bytes = b""
    failure: Failure | None = None
    words: str = ""


class GreetedConnection(Connection):
    """One to be listened to."""

    def hear(self, patience: float) -> Greeting:
        """Listen for a line, for ``patience`` seconds."""
        heard = Greeting()
        begun = time.monotonic()
        try:
            self._hear(heard, begun, begun + patience)
        except OSError as error:
            heard.failure, heard.words = failure(error), words(error)
        return heard

    def _hear(self, heard: Greeting, begun: float, end: float) -> None:
        while b"\n" not in heard.data and len(heard.data) < MOST:
            if not self._readable(end - time.monotonic()):
                heard.failure, heard.words = Failure.SILENCE, "nothing in time"
                return
            piece = self._tcp.recv(MOST - len(heard.data))
            if not piece:
                heard.failure, heard.words = Failure.CLOSED, "closed by the other side"
                return
            if heard.first_byte is None:
                heard.first_byte = time.monotonic() - begun
            heard.data += piece
        heard.data = heard.data.partition(b"\n")[0]
