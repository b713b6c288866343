"""What the tests of hostile input share: a download that must go on, handoffs made by hand."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from common.adapters import keyfile
from common.core import handoff
from common.core.handoff import Kind
from common.core.keys import Keys, derive
from tests.e2e import web
from tests.e2e.capture import capture
from tests.e2e.lab import BRIDGE1, CLIENT, LAB, VIP, Lab
from tests.e2e.raw import RawSender, raw_sender

DSCP = 1 << 2  # the lab's VIP, as it stands in the type-of-service byte
REQUEST = web.request("/1k", close=True)


class Download:
    """/100m through the VIP, read a little at each test: whoever breaks it is found out."""

    def __init__(self, lab: Lab) -> None:
        self._expected = (LAB / "www" / "100m").open("rb")
        self._tcp = lab.connect()
        self._tcp.sendall(web.request("/100m"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._tcp.recv(1)

    def goes_on(self) -> None:
        """Another megabyte, byte for byte, which the server has yet to send most of."""
        wanted = self._expected.read(1 << 20)
        assert wanted, "the file is too short for so many tests"
        received = b""
        while len(received) < len(wanted):
            part = self._tcp.recv(len(wanted) - len(received))
            assert part, "the download beside has ended"
            received += part
        assert received == wanted

    def close(self) -> None:
        self._tcp.close()
        self._expected.close()


@pytest.fixture(scope="module")
def download(running_lab: Lab) -> Iterator[Download]:
    download = Download(running_lab)
    yield download
    download.close()


@pytest.fixture
def unharmed(lab: Lab, download: Download) -> Iterator[None]:
    """The download goes on, and both programs are the same processes as before."""
    pids = {program: lab.pid(program) for program in ("balancer", "backend1", "backend2")}
    yield
    download.goes_on()
    for program, pid in pids.items():
        assert lab.pid(program) == pid
        assert lab.alive(program)
        assert lab.counters(program).get("internal_error", 0) == 0


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


@pytest.fixture(scope="module")
def keys(running_lab: Lab) -> Keys:
    return derive(keyfile.load(str(LAB / "etc" / "key"))[0])


@dataclass
class Handoff:
    """A handoff made by hand; its fields are those of one that the bridge takes."""

    keys: Keys
    port: int
    kind: Kind = Kind.HANDOFF
    c: int = 1_000_000
    b: int = 2_000_000
    age: float = 0
    bound_to: int | None = None  # the client ISN that is authenticated, where it is another
    payload: bytes = field(default=REQUEST)

    def packet(self) -> Any:
        message = handoff.Handoff(self.kind, 1460, 0, 7, 7, sack=True)
        addresses = socket.inet_aton(CLIENT) + socket.inet_aton(VIP)
        flow = addresses + struct.pack("!HH", self.port, 80)
        c = self.c if self.bound_to is None else self.bound_to
        binding = handoff.Binding(flow, c, self.b, self.c + 1)
        epoch = handoff.epoch_at(time.time() - self.age)
        option = handoff.encode(self.keys, message, binding, epoch)
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (1001, 5000))]
        tcp = TCP(sport=self.port, dport=80, flags="PA", seq=self.c + 1, ack=self.b + 1, window=512)
        tcp.options = [(option[0], option[2:]), *stamps]
        return IP(src=CLIENT, dst=BRIDGE1, tos=DSCP) / tcp / self.payload


def with_options(packet: Any, options: bytes) -> bytes:
    """The packet with these bytes as its TCP options, whatever they are; checksums are right."""
    tcp = packet[TCP].copy()
    tcp.options, payload = [], bytes(packet[TCP].payload)
    tcp.remove_payload()
    tcp.dataofs, tcp.chksum = 5 + len(options) // 4, 0
    data = bytearray(bytes(tcp)[:20] + options + payload)
    pseudo = socket.inet_aton(packet.src) + socket.inet_aton(packet.dst)
    pseudo += struct.pack("!HH", 6, len(data))
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + b"\0" * (len(data) % 2)))
    total += sum(struct.unpack("!6H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, 16, 0xFFFF ^ total)
    header = packet.copy()
    header.remove_payload()
    header.len, header.proto = 20 + len(data), 6
    return bytes(header) + bytes(data)


def recorded_handoff(lab: Lab, path: str) -> bytes:
    """A handoff as it left the balancer, of a connection that has since been closed."""
    with capture(lab, "balancer") as packets:
        assert lab.curl(path).status == 200
    handoffs = [packet for packet in packets.packets if 253 in packet.options and packet.outgoing]
    assert len(handoffs) == 1
    assert handoffs[0].destination == BRIDGE1
    return handoffs[0].data


def logged(lab: Lab, word: str) -> int:
    """Requests with a word that the server of backend1 has logged."""
    log = (LAB / "log" / "nginx-backend1.access.log").read_text()
    return log.count(f"{word} HTTP")
