"""One datagram and its answer, timed; who else answers, and what ICMP has to say.

The socket is not connected, or the kernel would keep from us what comes of an address that was not
asked. IP_RECVERR has it tell ICMP errors all the same, with who sent them (ip(7)).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field

from common.adapters.exchange import IN_TIME, LOOK, Failure, failure, source_to, words
from common.adapters.readable import readable

MOST = 65535
MOST_OTHERS = 4  # that are named
IP_RECVERR = 11  # linux/in.h
# struct sock_extended_err (linux/errqueue.h): errno, origin, type and code of ICMP; then the
# struct sockaddr_in of who said so.
_ERROR = struct.Struct("=IBBB1x4x4x4x4s8x")
_LOCAL, _ICMP = 1, 2  # origins


@dataclass(slots=True)
class Exchanged:
    """``local`` is this side's address and port; ``answered`` the seconds until ``data`` came, None
    where it did not for ``failure``, in ``words``. ``others`` are who answered without having been
    asked, ADDRESS:PORT each."""

    local: tuple[str, int]
    answered: float | None = None
    data: bytes = b""
    others: list[str] = field(default_factory=list)
    failure: Failure | None = None
    words: str = ""


class DatagramExchange:
    """To be closed."""

    def __init__(self, address: str, port: int) -> None:
        self._to = address, port
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        self._udp.setblocking(False)

    def close(self) -> None:
        self._udp.close()

    def ask(self, data: bytes, patience: float) -> Exchanged:
        """Send a datagram, and wait for ``patience`` seconds."""
        begun = time.monotonic()
        made = Exchanged((source_to(self._to[0]), 0))
        try:
            self._udp.bind(made.local)
            made.local = self._udp.getsockname()
            self._udp.sendto(data, self._to)
        except OSError as error:
            made.failure = failure(error, time.monotonic() - begun < LOOK)
            made.words = words(error)
            return made
        while made.answered is None and made.failure is None:
            left = begun + patience - time.monotonic()
            if left <= 0 or not readable(self._udp, left):
                _give_up(made)
            elif not self._reported(made):
                self._received(made, begun)
        return made

    def _received(self, made: Exchanged, begun: float) -> None:
        with suppress(OSError):  # an error is in its queue, too, and read there
            data, sender = self._udp.recvfrom(MOST)
            if sender == self._to:
                made.answered, made.data = time.monotonic() - begun, data
            elif len(made.others) < MOST_OTHERS:
                made.others.append(f"{sender[0]}:{sender[1]}")

    def _reported(self, made: Exchanged) -> bool:
        """Whether there was an error in the socket's queue of these."""
        try:
            _, told, *_ = self._udp.recvmsg(MOST, 256, socket.MSG_ERRQUEUE)
        except OSError:
            return False
        for level, kind, data in told:
            if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR) and len(data) >= _ERROR.size:
                number, origin, _, _, offender = _ERROR.unpack_from(data)
                error = OSError(number, os.strerror(number))
                made.failure, made.words = failure(error), words(error)
                if origin == _ICMP:
                    made.words += f" (ICMP of {socket.inet_ntoa(offender)})"
        return True


def _give_up(made: Exchanged) -> None:
    if made.others:
        made.failure = Failure.OTHER_SOURCE
        made.words = f"answered by {', '.join(made.others)}, not by who was asked"
    else:
        made.failure, made.words = Failure.SILENCE, IN_TIME
