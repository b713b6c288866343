"""Packets made by hand, sent from a host of the lab as they are, and what comes back for them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP, TCP

from tests.e2e.capture import ACK, FIN, SYN, Capture, Packet, capture
from tests.e2e.lab import CLIENT, VIP, Lab, until

FIRST_PORT, LAST_PORT = 64_000, 64_999  # the client's kernel answers nothing on these

_ports = iter(range(FIRST_PORT, LAST_PORT + 1))


class RawSender:
    """The client, without its kernel's TCP."""

    def __init__(self, lab: Lab, received: Capture) -> None:
        self._lab = lab
        self._received = received
        self._link_addresses: dict[str, bytes] = {}
        self._socket = lab.socket("client", socket.AF_PACKET, socket.SOCK_DGRAM)

    def close(self) -> None:
        self._socket.close()

    def send(self, packet: Any, host: str = "balancer") -> None:
        """Put a packet (scapy's or bytes) on the wire, addressed to a host's interface."""
        if host not in self._link_addresses:
            self._link_addresses[host] = self._lab.link_address(host)
        to = ("eth0", 0x0800, 0, 0, self._link_addresses[host])
        self._socket.sendto(bytes(packet), to)

    def answers(self, port: int) -> list[Packet]:
        """All that has come to a port of the client's so far."""
        packets = self._received.packets
        return [packet for packet in packets if not packet.outgoing and packet.ports[1] == port]

    def answer(
        self, port: int, wanted: Callable[[Packet], bool], seconds: float = 2, after: int = 0
    ) -> Packet:
        """The first packet to a port that is ``wanted``, behind so many others."""

        def found() -> Packet | None:
            packets = self.answers(port)[after:]
            return next((packet for packet in packets if wanted(packet)), None)

        return until(found, seconds, f"an answer to port {port}")

    def open(
        self,
        *,
        port: int | None = None,
        isn: int = 1_000_000,
        timestamps: bool = True,
        service: int = 80,
    ) -> Connection:
        """A handshake with a port of the VIP up to its SYN-ACK, which is not acknowledged yet."""
        options: list[Any] = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]
        if timestamps:
            options.append(("Timestamp", (1000, 0)))
        return self.open_with(b"", port=port, isn=isn, options=options, dport=service)

    def open_with(
        self, payload: bytes, *, port: int | None = None, isn: int = 1_000_000, **fields: Any
    ) -> Connection:
        """The same by a SYN with a payload and any TCP fields of scapy's."""
        port = new_port() if port is None else port
        seen = len(self.answers(port))
        self.send(segment(port, payload=payload, **{"flags": "S", "seq": isn, **fields}))
        syn_ack = self.answer(
            port, lambda packet: packet.flags == SYN | ACK and packet.ack == isn + 1, after=seen
        )
        return Connection(self, port, isn, syn_ack, seen, fields.get("dport", 80))


class Connection:
    """A connection with the VIP of which only the numbers exist."""

    def __init__(
        self, sender: RawSender, port: int, isn: int, syn_ack: Packet, seen: int, service: int
    ) -> None:
        self.sender = sender
        self.port = port
        self.service = service
        self.window = 512 if 3 in syn_ack.options else 0xFFFF  # of 64 KiB, scaled or not
        self._seen = seen  # packets to the port before this connection
        self.seq = isn + 1
        self.ack = (syn_ack.seq + 1) % 2**32
        self.isn = isn
        self.server_isn = syn_ack.seq
        stamps = syn_ack.options.get(8)
        self.echo = None if stamps is None else int.from_bytes(stamps[:4], "big")

    def segment(self, payload: bytes = b"", flags: str = "A", **fields: Any) -> Any:
        """The connection's next segment; ``fields`` are scapy's TCP fields instead of its own."""
        options = (
            [] if self.echo is None else [("NOP", None)] * 2 + [("Timestamp", (1001, self.echo))]
        )
        own = {
            "dport": self.service,
            "seq": self.seq,
            "ack": self.ack,
            "options": options,
            "window": self.window,
        }
        return segment(self.port, flags=flags, payload=payload, **{**own, **fields})

    def send(self, payload: bytes = b"", flags: str = "A", **fields: Any) -> None:
        self.sender.send(self.segment(payload, flags, **fields))

    def say(self, payload: bytes, **fields: Any) -> None:
        """Send a payload and go on behind it."""
        self.send(payload, "PA", **fields)
        self.seq = (self.seq + len(payload)) % 2**32

    def answers(self) -> list[Packet]:
        """All that has come on this connection so far, its SYN-ACK first."""
        return self.sender.answers(self.port)[self._seen :]

    def response(self) -> bytes:
        """What has come without a gap, from the first byte on."""
        data = b""
        parts = ((self._offset(packet), packet.payload) for packet in self.answers())
        for offset, part in sorted(parts):
            if offset > len(data):
                break
            data += part[len(data) - offset :]
        return data

    def read(self, whole: Callable[[bytes], bool], seconds: float = 5) -> bytes:
        """Acknowledge what comes until it is ``whole``."""

        def arrived() -> bytes | None:
            data = self.response()
            ack = (self.server_isn + 1 + len(data)) % 2**32
            if ack != self.ack:
                self.ack = ack
                self.send()
            return data if whole(data) else None

        return until(arrived, seconds, f"a whole response on port {self.port}")

    def end(self) -> None:
        """End our side, see the server's end, and acknowledge it."""
        self.send(flags="FA")
        self.seq = (self.seq + 1) % 2**32
        fin = self.sender.answer(self.port, lambda p: bool(p.flags & FIN), after=self._seen)
        self.ack = (fin.seq + len(fin.payload) + 1) % 2**32
        self.send()

    def _offset(self, packet: Packet) -> int:
        return (packet.seq - self.server_isn - 1) % 2**32 if packet.payload else 0


def segment(port: int, *, payload: bytes = b"", **fields: Any) -> Any:
    """A segment to the VIP, its port 80 by default, by scapy: the layers can still be changed."""
    return IP(src=CLIENT, dst=VIP) / TCP(**{"sport": port, "dport": 80, **fields}) / payload


def new_port() -> int:
    return next(_ports)


@contextmanager
def silent_ports(lab: Lab) -> Iterator[None]:
    """The client's kernel takes nothing on the ports of packets made by hand, for a while."""
    rule = ["PREROUTING", "-p", "tcp", "--dport", f"{FIRST_PORT}:{LAST_PORT}", "-j", "DROP"]
    lab.run("client", "iptables", "-t", "raw", "-I", *rule)
    try:
        yield
    finally:
        lab.run("client", "iptables", "-t", "raw", "-D", *rule)


@contextmanager
def raw_sender(lab: Lab) -> Iterator[RawSender]:
    with silent_ports(lab), capture(lab, "client") as received:
        sender = RawSender(lab, received)
        try:
            yield sender
        finally:
            sender.close()
