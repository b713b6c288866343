"""Packets on a host's interface, recorded while a test does something."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.lab import Lab

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

ETH_P_IP = 0x0800
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_CSUMNOTREADY = 8  # the interface is still to fill in the TCP checksum
SO_RCVBUFFORCE = 33
BUFFER = 256 << 20


@dataclass(frozen=True)
class Packet:
    """One IPv4 packet with TCP; ``outgoing`` as seen from the host it was recorded on."""

    data: bytes
    outgoing: bool
    unfinished: bool  # the sender's kernel left the TCP checksum to the interface

    @property
    def source(self) -> str:
        return socket.inet_ntoa(self.data[12:16])

    @property
    def destination(self) -> str:
        return socket.inet_ntoa(self.data[16:20])

    @property
    def way(self) -> tuple[str, str]:
        return self.source, self.destination

    @property
    def dscp(self) -> int:
        return self.data[1] >> 2

    @property
    def ttl(self) -> int:
        return self.data[8]

    @property
    def tcp(self) -> bytes:
        return self.data[(self.data[0] & 15) * 4 : int.from_bytes(self.data[2:4], "big")]

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack("!HH", self.tcp[:4])

    @property
    def seq(self) -> int:
        return int.from_bytes(self.tcp[4:8], "big")

    @property
    def ack(self) -> int:
        return int.from_bytes(self.tcp[8:12], "big")

    @property
    def flags(self) -> int:
        return self.tcp[13]

    @property
    def options(self) -> dict[int, bytes]:
        """TCP options by kind; each with its content."""
        found, rest = {}, self.tcp[20 : (self.tcp[12] >> 4) * 4]
        while rest and rest[0]:
            size = 1 if rest[0] == 1 else rest[1]
            found[rest[0]], rest = rest[2:size], rest[size:]
        return found

    @property
    def payload(self) -> bytes:
        return self.tcp[(self.tcp[12] >> 4) * 4 :]

    @property
    def checksums_right(self) -> bool:
        """Whether both checksums are right (RFC 1071); not to be asked of an unfinished packet."""
        tcp = self.tcp
        pseudo_header = self.data[12:20] + struct.pack("!HH", 6, len(tcp))
        header = self.data[: (self.data[0] & 15) * 4]
        return word_sum(header) == word_sum(pseudo_header + tcp) == 0xFFFF

    def __repr__(self) -> str:
        names = "".join(
            name for bit, name in zip(range(8), "FSRPAUEC", strict=True) if self.flags >> bit & 1
        )
        (sport, dport), way = self.ports, "out" if self.outgoing else "in"
        return (
            f"<{way} {self.source}:{sport} > {self.destination}:{dport} {names} seq {self.seq} "
            f"ack {self.ack} bytes {len(self.payload)} dscp {self.dscp} ttl {self.ttl}>"
        )


class Capture:
    """Packets of one interface and IP protocol since the capture began; ask for them once traffic
    is over.

    The kernel queues a packet for this socket while it passes the interface: whatever the test
    has seen the effect of is there.
    """

    def __init__(self, lab: Lab, host: str, interface: str, protocol: int) -> None:
        self._protocol = protocol
        self._socket = lab.socket(host, socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setblocking(False)
        self._socket.bind((interface, ETH_P_ALL))
        self._packets: list[Packet] = []

    @property
    def packets(self) -> list[Packet]:
        """All so far, in the order in which they passed."""
        if self._socket.fileno() >= 0:
            self._drain()
        return self._packets

    def close(self) -> None:
        """Record no more; what is there stays."""
        self._drain()
        self._socket.close()

    def _drain(self) -> None:
        while True:
            try:
                data, controls, _, address = self._socket.recvmsg(65536, 256)
            except BlockingIOError:
                return
            if address[1] != ETH_P_IP or len(data) < 28 or data[9] != self._protocol:
                continue
            status = 0
            for level, kind, content in controls:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status = struct.unpack_from("I", content)[0]
            unfinished = bool(status & TP_STATUS_CSUMNOTREADY)
            self._packets.append(Packet(data, address[2] == PACKET_OUTGOING, unfinished))


@contextmanager
def capture(
    lab: Lab, host: str, interface: str = "eth0", protocol: int = socket.IPPROTO_TCP
) -> Iterator[Capture]:
    recording = Capture(lab, host, interface, protocol)
    try:
        yield recording
    finally:
        recording.close()


def word_sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
