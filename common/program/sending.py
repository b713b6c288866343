"""Sending what a core has to send; what the host does not take is counted by its reason."""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter

from common.adapters.raw_socket import RawSockets
from common.core.ledger import Occurrence, Outcome
from common.program.logs import BoundedLog


class Unsent(Occurrence):
    """Packets of the program's own that the host refused, or had no room for."""

    SEND_FAILED_ENOBUFS = "send_failed_enobufs"
    SEND_FAILED_EAGAIN = "send_failed_eagain"
    SEND_FAILED_EPERM = "send_failed_eperm"
    SEND_FAILED_ENETUNREACH = "send_failed_enetunreach"
    SEND_FAILED_EHOSTUNREACH = "send_failed_ehostunreach"
    SEND_FAILED_ENETDOWN = "send_failed_enetdown"
    SEND_FAILED_OTHER = "send_failed_other"


SEND_FAILED = {
    errno.ENOBUFS: Unsent.SEND_FAILED_ENOBUFS,
    errno.EAGAIN: Unsent.SEND_FAILED_EAGAIN,
    errno.EPERM: Unsent.SEND_FAILED_EPERM,
    errno.ENETUNREACH: Unsent.SEND_FAILED_ENETUNREACH,
    errno.EHOSTUNREACH: Unsent.SEND_FAILED_EHOSTUNREACH,
    errno.ENETDOWN: Unsent.SEND_FAILED_ENETDOWN,
}


class Sender:
    """Sends packets, each with its mark; counts into ``counts`` and logs those that fail."""

    def __init__(self, counts: Counter[Outcome | Occurrence], bounded: BoundedLog) -> None:
        self._counts, self._bounded = counts, bounded
        self._raw = RawSockets()

    def send(self, out: list[tuple[int, bytes]]) -> None:
        """Send them all, and leave the list empty."""
        for mark, packet in out:
            try:
                self._raw.send(mark, packet)
            except OSError as error:
                reason = SEND_FAILED.get(error.errno or 0, Unsent.SEND_FAILED_OTHER)
                self._counts[reason] += 1
                self._bounded.log(logging.WARNING, reason, "%s: %s", ends(packet), error.strerror)
        out.clear()

    def close(self) -> None:
        self._raw.close()


def ends(packet: bytes) -> str:
    """Source and destination of a packet, as far as it has them."""
    if len(packet) < 20:
        return f"{len(packet)} bytes"
    src, dst = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    at = (packet[0] & 15) * 4
    if packet[9] not in (6, 17) or len(packet) < at + 4:
        return f"{src} -> {dst} protocol {packet[9]}"
    sport, dport = (
        int.from_bytes(packet[at : at + 2], "big"),
        int.from_bytes(packet[at + 2 : at + 4], "big"),
    )
    return f"{src}:{sport} -> {dst}:{dport}"
