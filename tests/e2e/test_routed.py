"""Clients, balancer and backends in subnets of their own: path-MTU discovery through the VIP.

Responses leave by the exit and meet a hop of MTU 1400 that requests do not; the exit's
"fragmentation needed" goes to the VIP, from where the responses seem to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import pytest

from tests.e2e.capture import ACK, SYN, Capture, Packet, capture
from tests.e2e.lab import VIP, Lab, until
from tests.e2e.quotations import ICMP, Quotation, delivered, recorded
from tests.e2e.routed import (
    BRIDGE1,
    CLIENT,
    SERVER1,
    SERVER2,
    TRANSIT_MTU,
    UPLOAD,
    download,
    local_route_on_lo,
    short_quotations,
    upload,
)

pytestmark = pytest.mark.root

CONTROL, DSCP = 48, 1  # what routers give ICMP errors (RFC 1812 section 4.3.2.5); the VIP's
WAY = [  # of an ICMP error: host, interface, whether it leaves there, to whom, with which DSCP
    ("exit", "transit", True, VIP, CONTROL),
    ("router", "transit", False, VIP, CONTROL),
    ("router", "front", True, VIP, CONTROL),
    ("balancer", "eth0", False, VIP, CONTROL),
    ("balancer", "eth0", True, BRIDGE1, DSCP),
    ("router", "servers", True, BRIDGE1, DSCP),
    ("backend1", "eth0", False, BRIDGE1, DSCP),
]
LINKS = {(host, interface) for host, interface, *_ in WAY}
LATE = 0.1  # of a download's segments: a larger one may not be among the later ones


@dataclass(frozen=True)
class Mode:
    """How the first bridge reaches its server: ``seen`` is whom that one takes for the client."""

    source: str
    host: str
    server: str
    seen: str

    def change(self, text: str) -> str:
        text = text.replace(f'"{SERVER1}:80"', f'"{self.server}:80"')
        return text.replace('source = "client"', f'source = "{self.source}"')


MODES = {
    "client": Mode("client", "backend1", SERVER1, CLIENT),
    "bridge": Mode("bridge", "backend1", SERVER1, BRIDGE1),
    "remote": Mode("bridge", "backend2", SERVER2, BRIDGE1),
}


@pytest.fixture(scope="module", params=MODES)
def mode(
    running_routed: Lab, first_bridges: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[Mode]:
    chosen = MODES[request.param]
    with ExitStack() as stack:
        if request.param == "bridge":
            stack.enter_context(local_route_on_lo(running_routed, "backend1", BRIDGE1))
        if request.param != "client":
            stack.enter_context(running_routed.configured(backend1=chosen.change))
        yield chosen


@pytest.mark.parametrize(
    ("mode", "quoting"),
    [
        ("client", "whole"),
        ("client", "8 bytes"),
        ("remote", "whole"),
        ("remote", "8 bytes"),
        ("bridge", "whole"),
        ("bridge", "8 bytes"),
    ],
    indirect=["mode"],
)
def test_the_server_obeys_an_icmp_error_to_the_vip(
    routed: Lab,
    mode: Mode,
    quoting: str,
    first_bridges: Callable[[str], str],
    report: Callable[[str], None],
) -> None:
    """It is followed from the router that sends it to the server's kernel."""
    short = quoting == "8 bytes"
    with ExitStack() as stack:
        if short:
            stack.enter_context(short_quotations(routed, "exit"))
        links = {link: stack.enter_context(capture(routed, *link, ICMP)) for link in LINKS}
        to_kernel = stack.enter_context(delivered(routed, mode.host))
        at_client = stack.enter_context(capture(routed, "client"))
        # what is captured there shall be segments, as they go over the wire
        routed.run("backend1", "ethtool", "-K", "eth0", "tso", "off", "gso", "off")
        stack.callback(routed.run, "backend1", "ethtool", "-K", "eth0", "tso", "on", "gso", "on")
        at_bridge = stack.enter_context(capture(routed, "backend1"))
        to_server = stack.enter_context(_towards(routed, mode))
        beyond = stack.enter_context(capture(routed, "router", "transit"))
        answer = download(routed, first_bridges("20m"))
        until(lambda: routed.closed(answer.port), 5, "the last packet has passed")
        seen = {link: recorded(messages) for link, messages in links.items()}
        server = to_kernel.quotations()
        client_port = answer.port
        sent = _responses(at_bridge.packets, client_port)
        crossed = _responses(beyond.packets, client_port)
        offset = _isn(at_client.packets, VIP) - _server_isn(to_server.packets, mode.server)

    # the way: at each place the same messages, to the VIP up to the balancer, then to the bridge
    came: list[Quotation] = []
    for host, interface, outgoing, to, dscp in WAY:
        there = [m for m in seen[host, interface] if m.packet.outgoing == outgoing]
        there = [m for m in there if m.packet.destination != mode.server]
        assert {(m.packet.destination, m.packet.dscp) for m in there} == {(to, dscp)}
        came = came or there
        assert _quoted(there) == _quoted(came)
    assert {message.packet.destination for message in server} == {mode.server}
    assert len(server) == len(came)

    # the quotation: of segments that did leave too large; at the server in its own terms
    too_large = {packet.seq for packet in sent if len(packet.data) > TRANSIT_MTU}
    for message in came:
        assert message.quoted.way == (VIP, CLIENT)
        assert message.quoted.ports == (80, client_port)
        assert message.quoted.seq in too_large
    for message, before in zip(server, came, strict=True):
        assert message.quoted.way == (mode.server, mode.seen)
        assert message.quoted.ports[0] == 80
        assert message.quoted.seq == (before.quoted.seq - offset) % 2**32
    everything = [message for messages in [*seen.values(), server] for message in messages]
    assert all(message.checksums_right for message in everything)
    assert {message.mtu for message in everything} == {TRANSIT_MTU}
    assert {message.quoted_tcp_bytes == 8 for message in everything} == {short}

    # obedience: the segments shrink, so that all fit, and nobody cuts them
    sizes = [len(packet.data) for packet in sent]
    large = [place for place, size in enumerate(sizes) if size > TRANSIT_MTU]
    assert max(large) < LATE * len(sizes)
    assert max(sizes[max(large) + 1 :]) == TRANSIT_MTU
    assert max(len(packet.data) for packet in crossed) == TRANSIT_MTU
    assert {int.from_bytes(packet.data[6:8], "big") for packet in crossed} == {0x4000}
    report(f"{len(came)} ICMP errors, {len(large)} of {len(sizes)} segments too large")


@pytest.mark.usefixtures("mode")
def test_upload(routed: Lab, first_bridges: Callable[[str], str]) -> None:
    upload(routed, first_bridges(UPLOAD))


def _towards(lab: Lab, mode: Mode) -> AbstractContextManager[Capture]:
    """What the server's host gets from the bridge; on the same host it passes the loopback."""
    return capture(lab, mode.host, "lo" if mode.host == "backend1" else "eth0")


def _responses(packets: list[Packet], port: int) -> list[Packet]:
    """Segments with data from the VIP to a port of the client's."""
    ours = [packet for packet in packets if packet.source == VIP and packet.ports[1] == port]
    return [packet for packet in ours if packet.payload]


def _isn(packets: list[Packet], source: str) -> int:
    return next(p.seq for p in packets if p.source == source and p.flags & SYN)


def _server_isn(packets: list[Packet], server: str) -> int:
    """From the first acknowledgment that it got: its SYN-ACK is the bridge's alone to see."""
    acks = [p.ack for p in packets if p.destination == server and p.flags & ACK]
    return acks[0] - 1


def _quoted(messages: list[Quotation]) -> list[bytes]:
    return [message.quoted.data for message in messages]
