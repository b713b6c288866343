"""HTTP requests on one connection, each step of them timed."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from common.adapters.exchange import IN_TIME, LOOK, SHOWN, Connection, Failure, failure, words

PIECE = 65536  # bytes read at once


@dataclass(slots=True)
class Request:
    """Seconds since it was sent until the other side had ``acknowledged`` it, the ``first_byte``
    came, and the ``whole`` response was there; None: not seen. ``size`` is of the response's body
    as far as it came, ``failure`` what prevented more, in ``words``."""

    acknowledged: float | None = None
    first_byte: float | None = None
    whole: float | None = None
    status: int = 0
    size: int = 0
    repeated: int = 0  # segments that this host's TCP sent again
    reusable: bool = False  # the connection takes another request
    failure: Failure | None = None
    words: str = ""


class HttpConnection(Connection):
    """One for requests, one after the other."""

    def get(self, host: str, path: str, patience: float) -> Request:
        """GET a path, within ``patience`` seconds."""
        made = Request()
        begun = time.monotonic()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: l3dsr-probe\r\nAccept: */*\r\n\r\n"
        )
        before = self._repeated
        try:
            self._tcp.sendall(head.encode("ascii"))
            self._await_answer(made, begun, begun + patience)
            if made.failure is None:
                self._read(made, begun, begun + patience)
        except OSError as error:
            made.failure, made.words = self._because(error)
        with suppress(OSError):
            made.repeated = self._repeated - before
        return made

    # What is another with TLS.

    def _answered(self, seconds: float) -> bool:
        """Whether there is a first byte, or the end, or will be within a time."""
        return self._readable(seconds)

    def _over(self) -> bool:
        """Whether it is the end, as it has ``_answered``."""
        return not self._tcp.recv(1, socket.MSG_PEEK)

    def _stream(self) -> Any:
        """What `http.client` is to read from."""
        return self._tcp

    def _because(self, error: OSError) -> tuple[Failure, str]:
        return failure(error), words(error)

    def _await_answer(self, made: Request, begun: float, end: float) -> None:
        answered = False
        while not answered or made.acknowledged is None:
            now = time.monotonic()
            if made.acknowledged is None and (answered or self._acknowledged):
                made.acknowledged = now - begun
            if now >= end:
                made.failure, made.words = Failure.SILENCE, IN_TIME
                return
            answered = answered or self._answered(min(LOOK, end - now))
        if self._over():
            made.failure, made.words = Failure.CLOSED, "closed without an answer"
            return
        made.first_byte = time.monotonic() - begun

    def _read(self, made: Request, begun: float, end: float) -> None:
        response = HTTPResponse(self._stream(), method="GET")
        try:
            self._limit(end)
            response.begin()
            made.status = response.status
            while piece := response.read1(PIECE):
                made.size += len(piece)
                self._limit(end)
            if response.length:
                made.failure = Failure.CLOSED
                made.words = f"closed {response.length} bytes before the response's end"
                return
        except TimeoutError:
            made.failure, made.words = Failure.SILENCE, "the response did not end in time"
            return
        except (HTTPException, ValueError) as error:
            made.failure, made.words = Failure.NO_HTTP, str(error)[:SHOWN]
            return
        made.whole = time.monotonic() - begun
        made.reusable = not response.will_close

    def _limit(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._tcp.settimeout(left)
