"""ICMP errors as recorded: what they say, and the segment that they quote."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.capture import SO_RCVBUFFORCE, Capture, Packet, word_sum
from tests.e2e.lab import Lab

ICMP = socket.IPPROTO_ICMP
FRAGMENTATION_NEEDED = (3, 4)
HEADER = 8


@dataclass(frozen=True)
class Quotation:
    """An ICMP error: the packet it came in, its type and code, its MTU, what it quotes of TCP.

    Of ``quoted`` only addresses, ports and ``seq`` are sure to be there.
    """

    packet: Packet
    kind: tuple[int, int]
    mtu: int
    quoted: Packet

    @property
    def quoted_tcp_bytes(self) -> int:
        return len(self.quoted.tcp)

    @property
    def checksums_right(self) -> bool:
        """That of ICMP, and of both IP headers."""
        data, inner = self.packet.data, self.quoted.data
        return word_sum(data[:20]) == word_sum(data[20:]) == word_sum(inner[:20]) == 0xFFFF


def read(data: bytes, outgoing: bool = False) -> Quotation:
    """From a packet without IP options, in or out."""
    kind, mtu = (data[20], data[21]), int.from_bytes(data[26:28], "big")
    quoted = Packet(data[20 + HEADER :], False, False)
    return Quotation(Packet(data, outgoing, False), kind, mtu, quoted)


def recorded(capture: Capture) -> list[Quotation]:
    """The "fragmentation needed" among what a capture of ICMP has."""
    messages = [read(packet.data, packet.outgoing) for packet in capture.packets]
    return [message for message in messages if message.kind == FRAGMENTATION_NEEDED]


class Delivered:
    """What a host's own kernel is given of ICMP: behind all interfaces and rules."""

    def __init__(self, lab: Lab, host: str) -> None:
        self._socket = lab.socket(host, socket.AF_INET, socket.SOCK_RAW, ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self._socket.setblocking(False)

    def quotations(self) -> list[Quotation]:
        """The "fragmentation needed" since this was last asked."""
        found = []
        while True:
            try:
                found.append(read(self._socket.recv(65536)))
            except BlockingIOError:
                return [message for message in found if message.kind == FRAGMENTATION_NEEDED]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def delivered(lab: Lab, host: str) -> Iterator[Delivered]:
    messages = Delivered(lab, host)
    try:
        yield messages
    finally:
        messages.close()
