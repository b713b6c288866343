"""UDP from the bridge on: real sockets behind it, datagrams steered by hand in front of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from common.core import checksum
from common.core.datagram import build
from common.core.segment import ICMP, IP_HEADER
from tests.e2e.lab import BRIDGE1, CLIENT, SERVER1, SERVER2, VIP, Growth, Lab, until
from tests.e2e.pooled import extended

pytestmark = pytest.mark.root

PORT, CLOSED, ELSEWHERE, CHECKED = 5300, 5301, 5302, 5303
DSCP = 1
UDP_SEGMENT = 103
IP_MTU = 14
SO_NO_CHECK = 11

CONFIGURED = f"""
[[backends]]
address = "{BRIDGE1}"
port = {PORT}
protocol = "udp"
server = "{SERVER1}:{PORT}"

[[backends]]
address = "{BRIDGE1}"
port = {CLOSED}
protocol = "udp"
server = "{SERVER1}:{CLOSED}"

[[backends]]
address = "{BRIDGE1}"
port = {ELSEWHERE}
protocol = "udp"
server = "{SERVER2}:{PORT}"
source = "bridge"
"""
CHECK = f"""
[[backends]]
address = "{BRIDGE1}"
port = {CHECKED}
protocol = "udp"
server = "{SERVER1}:{CHECKED}"
check = {{ kind = "udp", send = "PING", match = "^PON", interval = 0.1, timeout = 0.3, fall = 2 }}
"""


@pytest.fixture(scope="module", autouse=True)
def _bridge(running_lab: Lab) -> Iterator[None]:
    with running_lab.configured(backend1=lambda text: text + CONFIGURED):
        yield


class Client:
    """A client of the VIP whose datagrams come to the bridge as a balancer steers them."""

    def __init__(self, lab: Lab, port: int = PORT) -> None:
        self.socket = lab.socket("client", socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((CLIENT, 0))
        self.socket.connect((VIP, port))
        self.socket.settimeout(5)
        self._raw = lab.socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.port, self.at = port, self.socket.getsockname()[1]

    def ask(self, payload: bytes = b"query", *, port: int = 0, **changes: bool) -> None:
        source, target = _packed(CLIENT), _packed(BRIDGE1)
        packet = build(
            source, target, self.at, port or self.port, payload, tos=DSCP << 2, **changes
        )
        self._raw.sendto(packet, (BRIDGE1, 0))

    def send(self, packet: bytes) -> None:
        self._raw.sendto(packet, (BRIDGE1, 0))

    def close(self) -> None:
        self.socket.close()
        self._raw.close()


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    client = Client(lab)
    yield client
    client.close()


@pytest.fixture
def server(lab: Lab) -> Iterator[socket.socket]:
    with bound(lab, "backend1", SERVER1) as listening:
        yield listening


def bound(lab: Lab, host: str, address: str, port: int = PORT) -> socket.socket:
    made = lab.socket(host, socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(5)
    return made


@pytest.fixture
def growth(lab: Lab) -> Growth:
    return lab.growth("backend1")


def _packed(address: str) -> bytes:
    return socket.inet_aton(address)


def test_a_query_and_its_answer(
    lab: Lab, client: Client, server: socket.socket, growth: Growth
) -> None:
    """The server sees the client, the client the VIP: its socket is connected to that."""
    for payload in (b"query", b"", b"odd", os.urandom(1400)):
        client.ask(payload)
        assert server.recvfrom(2000) == (payload, (CLIENT, client.at))
        server.sendto(payload[::-1], (CLIENT, client.at))
        assert client.socket.recv(2000) == payload[::-1]
    path = "fast_datagrams" if lab.in_kernel else "datagrams"
    assert growth(f"{path}_up") == growth(f"{path}_down") == 4


def test_datagrams_without_checksums(client: Client, server: socket.socket) -> None:
    client.ask(b"query", checked=False)
    _, source = server.recvfrom(2000)
    server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    server.sendto(b"answer", source)
    assert client.socket.recv(2000) == b"answer"


@pytest.mark.parametrize("size", [3000, 8000])
def test_answers_larger_than_the_mtu(
    lab: Lab, client: Client, server: socket.socket, growth: Growth, size: int
) -> None:
    """In fragments from this host's interface on; what a queue cannot hold is dropped by name."""
    client.ask()
    _, source = server.recvfrom(2000)
    answer = os.urandom(size)
    server.sendto(answer, source)
    if lab.in_kernel or size < 4000:
        assert client.socket.recv(10000) == answer
    else:
        assert growth.reaches("datagram_too_large")


def test_answers_cut_by_the_kernel(client: Client, server: socket.socket) -> None:
    """UDP_SEGMENT: one send, many datagrams, as QUIC servers do."""
    client.ask()
    _, source = server.recvfrom(2000)
    parts = [os.urandom(1200) for _ in range(5)] + [b"the last one"]
    size = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 1200))]
    server.sendmsg([b"".join(parts)], size, 0, source)
    assert [client.socket.recv(2000) for _ in parts] == parts


def test_a_closed_port(lab: Lab, growth: Growth) -> None:
    """The client's kernel finds its socket by what the ICMP error quotes."""
    client = Client(lab, CLOSED)
    try:
        client.ask()
        with pytest.raises(ConnectionRefusedError):
            client.socket.recv(2000)
    finally:
        client.close()
    assert growth("icmp_of_server") == 1


def test_direct_clients_are_served_beside(
    lab: Lab, client: Client, server: socket.socket, growth: Growth
) -> None:
    with lab.socket("client", socket.AF_INET, socket.SOCK_DGRAM) as direct:
        direct.settimeout(5)
        direct.connect((SERVER1, PORT))
        direct.send(b"direct")
        payload, source = server.recvfrom(2000)
        server.sendto(payload, source)
        assert direct.recv(2000) == b"direct"
        direct.connect((SERVER1, CLOSED))
        direct.send(b"direct")
        with pytest.raises(ConnectionRefusedError):
            direct.recv(2000)
    assert growth("icmp_of_server_host") == 1
    assert growth("direct") == (0 if lab.in_kernel else 1)


def test_fragments_of_queries_arrive_or_are_dropped_by_name(
    client: Client, server: socket.socket, growth: Growth
) -> None:
    """Whether the kernel puts them together before is the host's matter."""
    whole = build(
        _packed(CLIENT), _packed(BRIDGE1), client.at, PORT, os.urandom(2000), tos=DSCP << 2
    )
    for at, end, more in ((20, 1020, 0x2000), (1020, len(whole), 0)):
        head = bytearray(whole[:20])
        head[2:4] = (20 + end - at).to_bytes(2, "big")
        head[4:6], head[6:8] = b"\x77\x77", (more | (at - 20) // 8).to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = checksum.internet_checksum(bytes(head)).to_bytes(2, "big")
        client.send(bytes(head) + whole[at:end])
    server.setblocking(False)

    def settled() -> bool:
        try:
            return server.recv(4000) == whole[28:]
        except BlockingIOError:
            return growth("fragment") == 1

    until(settled, 5, "it arrives, or is dropped")


def test_a_narrow_path_is_told_to_the_server(
    lab: Lab, client: Client, server: socket.socket, growth: Growth
) -> None:
    client.ask()
    _, source = server.recvfrom(2000)
    server.sendto(os.urandom(1400), source)
    sent = client.socket.recv(2000)
    quoted = build(_packed(VIP), _packed(CLIENT), PORT, client.at, sent)[:128]
    body = b"\3\4\0\0\0\0" + (1200).to_bytes(2, "big") + quoted
    body = body[:2] + checksum.internet_checksum(body).to_bytes(2, "big") + body[4:]
    ends = _packed(CLIENT), _packed(BRIDGE1)
    client.send(IP_HEADER.pack(0x45, DSCP << 2, 20 + len(body), 9, 0, 64, ICMP, 0, *ends) + body)
    assert growth.reaches("icmp_translated")
    with socket.socket(fileno=os.dup(server.fileno())) as asked:
        asked.connect(source)

        def learned() -> bool:
            return asked.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1200

        until(learned, 5, "the server's host knows the path's MTU")
    lab.run("backend1", "ip", "route", "flush", "cache")


@pytest.mark.parametrize("size", [20, 3000])
def test_a_server_elsewhere_sees_the_bridge(lab: Lab, growth: Growth, size: int) -> None:
    client = Client(lab, ELSEWHERE)
    with bound(lab, "backend2", SERVER2) as server:
        for _ in range(2):
            client.ask()
            _, (address, port) = server.recvfrom(2000)
            assert address == BRIDGE1
            assert 20000 <= port <= 29999
        answer = os.urandom(size)
        server.sendto(answer, (address, port))
        if size < 1400 or lab.in_kernel:
            assert client.socket.recv(4000) == answer
        else:
            assert growth.reaches("fragment")
    client.ask()
    with pytest.raises(ConnectionRefusedError):
        client.socket.recv(2000)
    client.close()


def test_a_restarted_bridge_goes_on(lab: Lab, client: Client, server: socket.socket) -> None:
    """Without the kernel's path the client speaks first."""
    client.ask()
    _, source = server.recvfrom(2000)
    os.kill(lab.pid("backend1"), signal.SIGTERM)
    until(lambda: not lab.alive("backend1"), 10, "the bridge has ended")
    if lab.in_kernel:
        server.sendto(b"meanwhile", source)
        assert client.socket.recv(2000) == b"meanwhile"
    lab.script("start", "backend1")
    if not lab.in_kernel:
        client.ask()
        server.recvfrom(2000)
    server.sendto(b"answer", source)
    assert client.socket.recv(2000) == b"answer"


@pytest.fixture
def checked(lab: Lab) -> Iterator[None]:
    """For who asks for it alone: its answers, too, are counted."""
    with extended(lab, "backend1", CHECK):
        yield


def test_a_server_is_as_well_as_it_answers(lab: Lab, checked: None) -> None:
    """By its own check, as /health tells balancers."""

    def ways() -> list[dict[str, Any]]:
        answer = lab.run("balancer", "curl", "-s", f"http://{BRIDGE1}:9320/health", check=False)
        every = json.loads(answer)["backends"] if answer else []
        return [each for each in every if (each["port"], each["protocol"]) == (CHECKED, "udp")]

    def state() -> tuple[bool, str]:
        (way,) = ways()
        return way["up"], way["reason"]

    until(ways, 10, "it tells")
    until(lambda: state() == (False, "connection refused"), 10, "nobody listens")
    with bound(lab, "backend1", SERVER1, CHECKED) as server:

        def answered(answer: bytes) -> bool:
            payload, who = server.recvfrom(2000)
            assert payload == b"PING"
            server.sendto(answer, who)
            return state()[0]

        until(lambda: answered(b"PONG"), 10, "it is well")
        until(lambda: not answered(b"SORRY"), 10, "it answers, but not as it should")
        assert state()[1] == "'^PON' is not found in the answer"
        until(lambda: answered(b"PONG"), 10, "it is well again")
        until(lambda: state() == (False, "no answer within 0.3 s"), 10, "it is silent")
