"""UDP where clients, balancer and backends have subnets of their own: a server learns through the
VIP how narrow the way to a client is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import datagrams
from tests.e2e.lab import Lab, until
from tests.e2e.pooled import in_force, pool
from tests.e2e.routed import BRIDGE1, CLIENT, SERVER1, TRANSIT_MTU

pytestmark = pytest.mark.root

PORT = datagrams.PORT
LARGE = TRANSIT_MTU  # bytes of data: a packet that the servers' link carries, and the transit not


@pytest.fixture(scope="module", autouse=True)
def one_backend(running_routed: Lab) -> Iterator[None]:
    """The first bridge, started anew with a server of datagrams."""
    entry = datagrams.entry(BRIDGE1, SERVER1)
    backends = f'{{ name = "backend1", bridge = "{BRIDGE1}" }}'
    with (
        running_routed.configured(backend1=lambda text: text + entry),
        in_force(running_routed, datagrams.service() + pool(backends=backends)),
    ):
        yield


@contextmanager
def repeating(lab: Lab) -> Iterator[set[str]]:
    """A server that answers what it got; as Linux has it by default, not in fragments unless it
    knows the way to be narrow. Gives who has asked."""
    udp = lab.socket("backend1", socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((SERVER1, PORT))
    udp.settimeout(0.1)
    over, asked = threading.Event(), set()

    def serve() -> None:
        while not over.is_set():
            try:
                size, peer = udp.recvfrom(100)
                asked.add(peer[0])
                udp.sendto(bytes(int(size)), peer)
            except OSError:
                continue  # nothing came, or it has just learnt of the way

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join(5)
        udp.close()


def test_fragmentation_needed_reaches_the_server(routed: Lab) -> None:
    steered = routed.growth("balancer")
    with repeating(routed) as asked, datagrams.Speaker(routed, CLIENT) as client:
        udp = client.socket
        udp.settimeout(0.5)

        def answered(size: int) -> bool:
            udp.send(f"{size}".encode())
            try:
                return udp.recv(65535) == bytes(size)
            except TimeoutError:
                return False

        assert answered(100)
        assert asked == {CLIENT}
        assert not answered(LARGE), "too large for the way, and nobody knows yet"
        until(lambda: answered(LARGE), 5, "the server sends fragments")
        assert steered("icmp_steered") >= 1
        mtu = routed.run("backend1", "ip", "route", "get", CLIENT, "from", SERVER1)
        assert f"mtu {TRANSIT_MTU}" in mtu
        for _ in range(5):
            assert answered(LARGE)
