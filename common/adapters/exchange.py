"""A TCP connection of this host's own, each step of it timed as this host sees it, and what can end
a step. By the kernel's own TCP, so that what is found holds for any client of this host's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from contextlib import suppress
from enum import StrEnum

from common.adapters.readable import readable

LOOK = 0.002  # seconds between two looks at what is acknowledged
SHOWN = 80  # characters of an error
IN_TIME = "no answer in time"

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
    NO_TLS = "no TLS"  # or the other side's alert
    CERTIFICATE = "certificate"
    OTHER_SOURCE = "other source"  # an answer of an address that was not asked
    LOCAL = "local"  # this host would not


class Connection:
    """``local`` is this side's address and port; ``handshake`` the seconds that it took, None where
    there was none for ``failure``, in ``words``. To be closed."""

    def __init__(self, address: str, port: int, patience: float) -> None:
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.handshake: float | None = None
        self.failure: Failure | None = None
        self.words = ""
        self.local = (source_to(address), 0)
        begun = time.monotonic()
        try:
            self._tcp.bind(("", 0))
            self.local = (self.local[0], self._tcp.getsockname()[1])
            self._tcp.settimeout(patience)
            self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tcp.connect((address, port))
        except OSError as error:
            at_once = time.monotonic() - begun < LOOK
            self.failure, self.words = failure(error, at_once), words(error)
            return
        self.handshake = time.monotonic() - begun
        self.local = self._tcp.getsockname()

    def close(self) -> None:
        """End it; by a reset, where it may stand still, so that nothing of it stays anywhere."""
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._tcp.close()

    @property
    def _acknowledged(self) -> bool:
        """Whether all that was sent is."""
        return not self._info(_UNACKED)

    @property
    def _repeated(self) -> int:
        """Segments that this host's TCP has sent again so far."""
        return self._info(_TOTAL_RETRANS)

    def _readable(self, seconds: float) -> bool:
        """Whether the socket is, or becomes so within a time."""
        return readable(self._tcp, seconds)

    def _info(self, field: struct.Struct) -> int:
        data = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        number: int = field.unpack_from(data)[0]
        return number


def source_to(address: str) -> str:
    """The address of this host's that packets there have as their source; '' where none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.connect((address, 9))
        source: str = asking.getsockname()[0]
        return source
    return ""


def failure(error: OSError, at_once: bool = False) -> Failure:
    """What an error of a socket means; ``at_once``: it came without a packet's having been sent."""
    if isinstance(error, TimeoutError):
        return Failure.SILENCE
    if isinstance(error, ConnectionRefusedError):
        return Failure.REFUSED
    if isinstance(error, ConnectionError):
        return Failure.RESET
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return Failure.NO_ROUTE if at_once else Failure.UNREACHABLE
    return Failure.LOCAL


def words(error: OSError) -> str:
    """As the system has it, such as "connection refused"."""
    if isinstance(error, TimeoutError):
        return IN_TIME
    return os.strerror(error.errno).lower() if error.errno else str(error)[:SHOWN]
