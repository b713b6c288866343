"""Sending whole IPv4 packets, each with a mark, from any source address."""

from __future__ import annotations

import errno
import socket

SEND_BUFFER = 4 << 20  # bytes: the held segments of many connections at once

# Not in the socket module: from linux/in.h and asm-generic/socket.h.
_IP_RECVERR = 11
_SO_SNDBUFFORCE = 32

_OF_THIS_PACKET = (errno.ENOBUFS, errno.EAGAIN)


class RawSockets:
    """One socket per mark, made when first used; a mark is set on the socket, not per packet."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def send(self, mark: int, packet: bytes) -> None:
        """Send ``packet`` to its destination address; raises OSError where the host refuses it, or
        drops it for want of room."""
        out = self._sockets.get(mark) or self._open(mark)
        to = (socket.inet_ntoa(packet[16:20]), 0)
        try:
            out.sendto(packet, to)
        except OSError as error:
            if error.errno in _OF_THIS_PACKET:
                raise
            # It may be that of an ICMP error, which anyone can send, about a packet that was none
            # of ours: the kernel reports it once, in place of sending this one.
            out.sendto(packet, to)

    def close(self) -> None:
        for out in self._sockets.values():
            out.close()
        self._sockets.clear()

    def _open(self, mark: int) -> socket.socket:
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        # The packet carries its whole header; the kernel fills in nothing but what is zero.
        out.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        # Else a packet that the interface's queue has no room for is dropped without a word.
        out.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        out.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # nothing is read: the least
        if mark:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        out.setblocking(False)
        self._sockets[mark] = out
        return out
