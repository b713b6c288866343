"""Sending whole IPv4 packets, each with a mark, from any source address."""

from __future__ import annotations

import socket

SEND_BUFFER = 4 << 20  # bytes: the held segments of many connections at once


class RawSockets:
    """One socket per mark, made when first used; a mark is set on the socket, not per packet."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def send(self, mark: int, packet: bytes) -> None:
        """Send ``packet`` to its destination address; raises OSError where the host refuses it."""
        out = self._sockets.get(mark) or self._open(mark)
        out.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))

    def close(self) -> None:
        for out in self._sockets.values():
            out.close()
        self._sockets.clear()

    def _open(self, mark: int) -> socket.socket:
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        # The packet carries its whole header; the kernel fills in nothing but what is zero.
        out.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if mark:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        out.setblocking(False)
        self._sockets[mark] = out
        return out
