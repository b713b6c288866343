"""One TCP connection with HTTP requests, or listened to, each step timed as this host sees it.

By the kernel's own TCP, so that what is found holds for any client of this host's.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException, HTTPResponse

LOOK = 0.002  # seconds between two looks at what is acknowledged
PIECE = 65536  # bytes read at once
SHOWN = 80  # characters of an error

# Of struct tcp_info (linux/tcp.h): segments not acknowledged yet, and all that were sent again.
_UNACKED, _TOTAL_RETRANS = struct.Struct("24xI"), struct.Struct("100xI")
_TCP_INFO_BYTES = 104


class Failure(StrEnum):
    """What ended a step, other than its success."""

    NO_ROUTE = "no route"
    UNREACHABLE = "unreachable"  # a router's word, or nobody has the address in this network
    REFUSED = "refused"
    SILENCE = "silence"
    RESET = "reset"
    CLOSED = "closed"  # the other side ended it before it was whole
    NO_HTTP = "no HTTP"
    LOCAL = "local"  # this host would not


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


class Connection:
    """``local`` is this side's address and port; ``handshake`` the seconds that it took, None where
    there was none for ``failure``, in ``words``. To be closed."""

    def __init__(self, address: str, port: int, patience: float) -> None:
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.handshake: float | None = None
        self.failure: Failure | None = None
        self.words = ""
        self.local = (_source_to(address), 0)
        begun = time.monotonic()
        try:
            self._tcp.bind(("", 0))
            self.local = (self.local[0], self._tcp.getsockname()[1])
            self._tcp.settimeout(patience)
            self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tcp.connect((address, port))
        except OSError as error:
            at_once = time.monotonic() - begun < LOOK
            self.failure, self.words = _failure(error, at_once), _words(error)
            return
        self.handshake = time.monotonic() - begun
        self.local = self._tcp.getsockname()

    def close(self) -> None:
        """End it; by a reset, where it may stand still, so that nothing of it stays anywhere."""
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._tcp.close()

    def listen(self, patience: float) -> Request:
        """What comes first within ``patience`` seconds, where nothing is asked; ``words`` are the
        first line of it. That nothing comes is no failure."""
        made = Request()
        begun = time.monotonic()
        try:
            self._tcp.settimeout(patience)
            said = self._tcp.recv(PIECE)
        except TimeoutError:
            return made
        except OSError as error:
            made.failure, made.words = _failure(error), _words(error)
            return made
        if not said:
            made.failure, made.words = Failure.CLOSED, "closed without a word"
            return made
        made.first_byte, made.size = time.monotonic() - begun, len(said)
        made.words = ascii(said.split(b"\n")[0].rstrip().decode("latin-1"))[1:-1][:SHOWN]
        return made

    def get(self, host: str, path: str, patience: float) -> Request:
        """GET a path, within ``patience`` seconds."""
        made = Request()
        begun = time.monotonic()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: l3dsr-probe\r\nAccept: */*\r\n\r\n"
        )
        before = self._info(_TOTAL_RETRANS)
        try:
            self._tcp.sendall(head.encode("ascii"))
            self._await_answer(made, begun, begun + patience)
            if made.failure is None:
                self._read(made, begun, begun + patience)
        except OSError as error:
            made.failure, made.words = _failure(error), _words(error)
        with suppress(OSError):
            made.repeated = self._info(_TOTAL_RETRANS) - before
        return made

    def _await_answer(self, made: Request, begun: float, end: float) -> None:
        readable = False
        while not readable or made.acknowledged is None:
            now = time.monotonic()
            if made.acknowledged is None and (readable or not self._info(_UNACKED)):
                made.acknowledged = now - begun
            if now >= end:
                made.failure, made.words = Failure.SILENCE, "no answer in time"
                return
            readable = bool(select.select([self._tcp], [], [], min(LOOK, end - now))[0])
        if not self._tcp.recv(1, socket.MSG_PEEK):
            made.failure, made.words = Failure.CLOSED, "closed without an answer"
            return
        made.first_byte = time.monotonic() - begun

    def _read(self, made: Request, begun: float, end: float) -> None:
        response = HTTPResponse(self._tcp, method="GET")
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

    def _info(self, field: struct.Struct) -> int:
        data = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        number: int = field.unpack_from(data)[0]
        return number


def _source_to(address: str) -> str:
    """The address of this host's that packets there have as their source; '' where none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.connect((address, 9))
        source: str = asking.getsockname()[0]
        return source
    return ""


def _failure(error: OSError, at_once: bool = False) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure.SILENCE
    if isinstance(error, ConnectionRefusedError):
        return Failure.REFUSED
    if isinstance(error, ConnectionError):
        return Failure.RESET
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return Failure.NO_ROUTE if at_once else Failure.UNREACHABLE
    return Failure.LOCAL


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno).lower() if error.errno else str(error)[:SHOWN]
