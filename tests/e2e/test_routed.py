"""Clients, balancer and backends in subnets of their own: path-MTU discovery through the VIP.

Responses leave by the exit and meet a hop of MTU 1400 that requests do not; the exit's
"fragmentation needed" goes to the VIP, from where the responses seem to come.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP as ICMPMessage
from scapy.layers.inet import IP

from tests.e2e import web
from tests.e2e.capture import ACK, SYN, Capture, Packet, capture
from tests.e2e.conftest import lacking
from tests.e2e.lab import NAME, SCRIPT, VIP, Lab, until
from tests.e2e.quotations import ICMP, Quotation, delivered, recorded
from tests.e2e.routed import (
    BACKENDS,
    BRIDGE1,
    CLIENT,
    FRONT,
    SERVER1,
    SERVER2,
    TRANSIT_MTU,
    filtered,
    forget_path_mtus,
    narrow,
    routed_lab,
    short_quotations,
)
from tests.e2e.scripted import serving

pytestmark = pytest.mark.root

HOSTS = ("client", "balancer", "backend1", "backend2")
ROUTERS = ("router", "exit")
STRICT = 1
MB = 1 << 20
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
NARROW = 1300  # of ways that a test makes narrower
OTHER_PORT = 8022
HEADERS, HANDOFF = 40, 16  # bytes of IP and TCP, and of our option
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


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    if missing := lacking():
        pytest.skip(f"needs {missing}")
    lab = routed_lab(os.environ.get("LAB_DATAPATH", "nfqueue"))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"{NAME}-routed-" not in left.stdout


@pytest.fixture(scope="module")
def path(running: Lab) -> Callable[[str], str]:
    """By file: a path that leads to the first bridge."""
    paths = {name: running.path_for(name, "backend1") for name in ("20m", "upload/routed")}
    return paths.__getitem__


@pytest.fixture(scope="module", params=MODES)
def mode(
    running: Lab, path: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[Mode]:
    chosen = MODES[request.param]
    if request.param == "client":
        yield chosen
    else:
        with running.configured(backend1=chosen.change):
            yield chosen


@pytest.fixture
def lab(running: Lab) -> Lab:
    forget_path_mtus(running)
    return running


def test_strict_reverse_path_filters_are_in_nobodys_way(
    lab: Lab, path: Callable[[str], str]
) -> None:
    """All hosts have one, and the router where the clients are: see provisioning/lab/routed.sh."""
    for host in (*HOSTS, "client2"):
        assert lab.run(host, "sysctl", "-n", "net.ipv4.conf.all.rp_filter") == f"{STRICT}\n"
    before = {host: filtered(lab, host) for host in (*HOSTS, *ROUTERS)}
    received, _ = lab.bytes_at("balancer")
    assert hashlib.sha256(lab.curl(path("20m")).body).digest() == _digest(lab, "20m")
    assert lab.bytes_at("balancer")[0] - received < MB, "responses do not pass the balancer"
    _upload(lab, path("upload/routed"))
    assert {host: filtered(lab, host) for host in before} == before
    # and a filter it is
    with lab.socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(IP(src=SERVER1, dst=VIP) / ICMPMessage()), (VIP, 0))
    until(lambda: filtered(lab, "router") == before["router"] + 1, 2, "one is dropped")


def test_the_lab_script_knows_which_topology_is_up(lab: Lab) -> None:
    """A server counts as started when it answers at its address, which is the topology's."""
    environment = {**os.environ, "LAB_NAME": f"{NAME}-routed", "LAB_DIR": str(lab.directory)}
    environment.pop("LAB_TOPOLOGY", None)
    command = [SCRIPT, "restart", "nginx-backend2"]
    subprocess.run(command, env=environment, check=True, timeout=60)


@pytest.mark.parametrize(
    ("mode", "quoting"),
    [
        ("client", "whole"),
        ("client", "8 bytes"),
        ("remote", "whole"),
        ("remote", "8 bytes"),
        ("bridge", "whole"),  # takes long: see README, Limits
    ],
    indirect=["mode"],
)
def test_the_server_obeys_an_icmp_error_to_the_vip(
    lab: Lab,
    mode: Mode,
    quoting: str,
    path: Callable[[str], str],
    report: Callable[[str], None],
) -> None:
    """It is followed from the router that sends it to the server's kernel."""
    short = quoting == "8 bytes"
    with ExitStack() as stack:
        if short:
            stack.enter_context(short_quotations(lab, "exit"))
        links = {link: stack.enter_context(capture(lab, *link, ICMP)) for link in LINKS}
        to_kernel = stack.enter_context(delivered(lab, mode.host))
        at_client = stack.enter_context(capture(lab, "client"))
        at_bridge = stack.enter_context(capture(lab, "backend1"))
        to_server = stack.enter_context(_towards(lab, mode))
        beyond = stack.enter_context(capture(lab, "router", "transit"))
        answer = lab.curl(path("20m"))
        assert hashlib.sha256(answer.body).digest() == _digest(lab, "20m")
        until(lambda: lab.closed(answer.port), 5, "the last packet has passed")
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


def test_upload(lab: Lab, mode: Mode, path: Callable[[str], str]) -> None:
    _upload(lab, path("upload/routed"))


def test_upload_over_a_narrow_way_to_the_balancer(lab: Lab, path: Callable[[str], str]) -> None:
    """The client's own path-MTU discovery, nothing of ours."""
    with (
        lab.no_offloads(),
        narrow(lab, "router", VIP, "front", NARROW),
        capture(lab, "client", protocol=ICMP) as at_client,
        capture(lab, "balancer") as at_balancer,
    ):
        _upload(lab, path("upload/routed"))
        told = recorded(at_client)
        came = [p for p in at_balancer.packets if p.way == (CLIENT, VIP)]
    assert {message.quoted.way for message in told} == {(CLIENT, VIP)}
    assert {message.mtu for message in told} == {NARROW}
    assert max(len(packet.data) for packet in came) == NARROW


@pytest.mark.parametrize("silent", [False, True], ids=["found out", "stated"])
def test_a_narrow_way_to_the_bridges(lab: Lab, path: Callable[[str], str], silent: bool) -> None:
    """Clients are told of it by the MSS: a router's word about what is steered says nothing to
    them. The balancer asks the bridges' hosts by pings; where these are not answered, or the
    way shrinks later, a route states its MTU."""
    with ExitStack() as stack:
        stack.callback(lab.script, "restart", "balancer")
        stack.callback(forget_path_mtus, lab)
        stack.enter_context(narrow(lab, "router", BACKENDS, "servers", NARROW))
        if silent:
            for host in ("backend1", "backend2"):
                stack.enter_context(lab.sysctl(host, net_ipv4_icmp_echo_ignore_all=1))
            stack.enter_context(_stated(lab, BACKENDS, NARROW))
        lab.script("restart", "balancer")
        stack.enter_context(lab.no_offloads())
        at_client = stack.enter_context(capture(lab, "client"))
        at_bridge = stack.enter_context(capture(lab, "backend1"))
        _upload(lab, path("upload/routed"))
        steered = [packet for packet in at_bridge.packets if packet.destination == BRIDGE1]
        syn_acks = [p for p in at_client.packets if p.source == VIP and p.flags & SYN]
        told = {int.from_bytes(packet.options[2], "big") for packet in syn_acks}
    assert told == {NARROW - HEADERS - HANDOFF}
    assert max(len(packet.data) for packet in steered) in (NARROW - HANDOFF, NARROW)
    assert any(253 in packet.options for packet in steered)


def test_clients_are_told_of_no_narrow_way_where_there_is_none(lab: Lab) -> None:
    """That of the responses is not the requests' way: the pings' answers come by it."""
    with capture(lab, "client") as at_client:
        assert lab.curl("/1k").status == 200
        syn_ack = next(p for p in at_client.packets if p.source == VIP and p.flags & SYN)
    assert int.from_bytes(syn_ack.options[2], "big") == 1500 - HEADERS - HANDOFF


@contextmanager
def _stated(lab: Lab, destination: str, mtu: int) -> Iterator[None]:
    """A route of the balancer's host that says what the way takes."""
    lab.run("balancer", "ip", "route", "add", destination, "via", FRONT, "mtu", f"{mtu}")
    try:
        yield
    finally:
        lab.run("balancer", "ip", "route", "delete", destination)


def _upload(lab: Lab, path: str) -> None:
    """20 MB to the first bridge's server, byte for byte."""
    source, stored = lab.directory / "www" / "20m", lab.directory / "www" / "upload" / "routed"
    try:
        assert lab.curl(path, "-T", str(source)).status == 201
        assert stored.read_bytes() == source.read_bytes()
    finally:
        stored.unlink(missing_ok=True)


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


def _digest(lab: Lab, name: str) -> bytes:
    with (lab.directory / "www" / name).open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def test_the_balancers_host_keeps_its_own_path_mtu_discovery(lab: Lab) -> None:
    """Say ssh at the VIP: what is no service's of ours is the kernel's to hear of."""
    content = (lab.directory / "www" / "1m").read_bytes()
    with (
        narrow(lab, "router", CLIENT, "clients", NARROW),
        serving(lab, lambda tcp: tcp.sendall(content), "balancer", (VIP, OTHER_PORT)),
        lab.connect(to=(VIP, OTHER_PORT)) as tcp,
    ):
        assert web.rest(tcp) == content
    assert f"mtu {NARROW}" in lab.run("balancer", "ip", "route", "get", CLIENT)
