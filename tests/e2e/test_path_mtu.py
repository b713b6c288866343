"""A path to the bridges that carries less than an Ethernet frame: nothing hangs."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web, work
from tests.e2e.capture import SYN, capture
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, Lab, until
from tests.soak import Amount

pytestmark = pytest.mark.root

MTU = 1400
HEADERS, HANDOFF = 40, 16


@pytest.fixture(scope="module", autouse=True)
def narrow(running_lab: Lab) -> Iterator[None]:
    """The balancer knows from its routes; and the switch carries no larger packet to a bridge, and
    says nothing, as the worst of networks do."""
    lab = running_lab
    larger = f"FORWARD -m physdev --physdev-in balancer -m length --length {MTU + 1}: -j DROP"
    rule = ("iptables", "-w", "-t", "mangle")
    for bridge in (BRIDGE1, BRIDGE2):
        lab.run("balancer", "ip", "route", "add", bridge, "dev", "eth0", "mtu", f"{MTU}")
    lab.run("switch", *rule, "-A", *larger.split())
    try:
        lab.script("restart", "balancer")
        with lab.no_offloads():
            yield
    finally:
        lab.run("switch", *rule, "-D", *larger.split())
        for bridge in (BRIDGE1, BRIDGE2):
            lab.run("balancer", "ip", "route", "del", bridge, "dev", "eth0", "mtu", f"{MTU}")
    lab.script("restart", "balancer")


def test_downloads_uploads_and_many_requests(
    lab: Lab, amount: Amount, report: Callable[[str], None]
) -> None:
    with (
        work.some(amount(4 << 20, 50 << 20), amount(200, 1000)) as some,
        capture(lab, "balancer") as recorded,
    ):
        done = work.do(lab, some, timeout=60)
    report(f"{done}")
    assert done.slowest < 1, "something was sent again"
    syn_acks = [packet for packet in recorded.packets if packet.flags & SYN and packet.outgoing]
    told = {int.from_bytes(packet.options[2], "big") for packet in syn_acks}
    assert told == {MTU - HEADERS - HANDOFF}, "clients are told in the MSS"


@pytest.mark.parametrize("size", [100, 1200, 1400, 3000, 16_000])
@pytest.mark.parametrize("owned", [False, True], ids=["in one go", "in parts"])
def test_heads_of_all_sizes(lab: Lab, size: int, owned: bool) -> None:
    """Full segments with the handoff option in them, the client's or the balancer's own."""
    head = web.request("/1k", "X-Filler: " + "x" * size, close=True)
    with capture(lab, "balancer") as recorded, lab.connect() as tcp:
        if owned:
            tcp.sendall(head[:8])
            until(lambda: not unacknowledged(tcp), 2, "the balancer acknowledges the first part")
        tcp.sendall(head[8:] if owned else head)
        answer = web.rest(tcp)
        port = tcp.getsockname()[1]
    assert answer.endswith((LAB / "www" / "1k").read_bytes())
    sizes = [
        len(packet.data)
        for packet in recorded.packets
        if packet.destination in (BRIDGE1, BRIDGE2) and packet.ports[0] == port
    ]
    assert max(sizes) <= MTU
    assert size < MTU or max(sizes) == MTU, "no handoff was as large as the path takes"


def unacknowledged(tcp: socket.socket) -> int:
    """Bytes that the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
    (count,) = struct.unpack("i", fcntl.ioctl(tcp, termios.TIOCOUTQ, bytes(4)))
    return int(count)
