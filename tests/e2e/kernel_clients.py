"""What the tests have a client's kernel do that no setting of the host does."""

from __future__ import annotations

import socket

from tests.e2e.capture import ACK, SYN, Capture, Packet
from tests.e2e.lab import VIP, Lab


def small_mss(lab: Lab, to: tuple[str, int] = (VIP, 80)) -> socket.socket:
    """A connection that offers, and itself sends, no segment above 536 bytes."""
    tcp = lab.socket("client")
    tcp.settimeout(10)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    tcp.connect(to)
    return tcp


def small_buffer(lab: Lab, to: tuple[str, int] = (VIP, 80)) -> socket.socket:
    """A connection whose receive window closes after a few kilobytes that nobody reads."""
    tcp = lab.socket("client")
    tcp.settimeout(10)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    tcp.connect(to)
    return tcp


def fast_open(lab: Lab, data: bytes, to: tuple[str, int] = (VIP, 80)) -> socket.socket:
    """A connection opened by its first data (RFC 7413); what the SYN holds the kernel decides."""
    tcp = lab.socket("client")
    tcp.sendto(data, socket.MSG_FASTOPEN, to)
    tcp.settimeout(10)
    return tcp


def begun(packets: Capture) -> list[Packet]:
    """Packets of the connections that began while they were recorded, on their client's host."""
    ports = {p.ports[0] for p in packets.packets if p.outgoing and p.flags & (SYN | ACK) == SYN}
    return [packet for packet in packets.packets if ports & set(packet.ports)]


def handshake(packets: Capture) -> tuple[Packet, Packet]:
    """The first SYN and its SYN-ACK."""
    syn = next(packet for packet in packets.packets if packet.flags & (SYN | ACK) == SYN)
    answer = next(packet for packet in packets.packets if packet.flags & (SYN | ACK) == SYN | ACK)
    return syn, answer
