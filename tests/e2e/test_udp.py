"""Services over UDP, on both data paths: who answers whom, for how long, and what a datagram looks
like on its way there and back."""

from __future__ import annotations

import errno
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, UDP

from tests.e2e import datagrams
from tests.e2e.capture import Packet, capture
from tests.e2e.controlled import told
from tests.e2e.datagrams import (
    CHECK,
    OFTEN,
    PORT,
    SERVERS,
    Servers,
    Speaker,
    address,
    balanced,
    bridged,
    checksum,
    many_addresses,
    met,
    ready,
    said,
    serving,
    shares,
    speakers,
)
from tests.e2e.lab import BRIDGE1, CLIENT, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.pooled import FIRST, SECOND, extended, given, in_force, pending, rows
from tests.e2e.quotations import ICMP

pytestmark = pytest.mark.root

BOTH_NAMES = {"backend1", "backend2"}
FEW = [address(number) for number in range(1, 13)]
CHECKED = PORT + 1
TO_CHECKED = (VIP, CHECKED)
BRIDGE3 = "192.168.33.22"
VIP2 = "192.168.33.11"
OWN_PORT = 62_000  # none of the kernel's own choice
THREE = f'{FIRST}, {SECOND}, {{ name = "third", bridge = "{BRIDGE3}" }}'
LINK = 1500 - 20 - 8  # bytes of data that the lab's links carry in one packet


@pytest.fixture(scope="module", params=["nfqueue", "ebpf"])
def path(running_lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Either data path, a service whose clients are placed by their addresses, ways to its servers,
    and many clients' addresses. Tests have others in its place where they need them."""
    with (
        ready(running_lab, request.param),
        many_addresses(running_lab),
        balanced(running_lab),
    ):
        yield request.param


@pytest.fixture
def servers(lab: Lab, path: str) -> Iterator[Servers]:
    with serving(lab) as running:
        yield running


# --- who answers whom ---


def test_a_client_keeps_its_backend_from_every_port(lab: Lab, servers: Servers) -> None:
    first = met(lab, FEW)
    again = [met(lab, FEW) for _ in range(3)]
    assert set(first.values()) == BOTH_NAMES
    assert again == [first] * 3
    assert {(name, peer[0]) for name, peer, _ in servers.got} == {
        (name, source) for source, name in first.items()
    }, "the servers see the clients' own addresses"


def test_the_servers_see_the_clients_ports(lab: Lab, servers: Servers) -> None:
    with speakers(lab, 5) as five:
        for speaker in five:
            speaker.asks()
        assert {peer for _, peer, _ in servers.got} == {speaker.end for speaker in five}


def test_by_port_a_flow_keeps_its_backend_and_a_client_has_several(
    lab: Lab, servers: Servers
) -> None:
    with balanced(lab, 'key = "source-port"'), speakers(lab, 24) as all_of_one:
        first = [speaker.meets() for speaker in all_of_one]
        again = [[speaker.meets() for speaker in all_of_one] for _ in range(3)]
    assert set(first) == BOTH_NAMES
    assert again == [first] * 3


@pytest.mark.parametrize("policy", ["round-robin", "least-pending"])
def test_new_clients_are_dealt_out_evenly(lab: Lab, servers: Servers, policy: str) -> None:
    with balanced(lab, f'policy = "{policy}"', name=policy):
        found = met(lab, FEW)
        assert shares(found) == {"backend1": 6, "backend2": 6}
        assert met(lab, FEW) == found
        assert pending(lab, policy) == {"backend1": 6, "backend2": 6}


def test_a_weight_is_a_share_of_the_clients(lab: Lab, servers: Servers) -> None:
    heavy = FIRST.replace("{ ", "{ weight = 3, ")
    with balanced(lab, 'policy = "round-robin"', backends=f"{heavy}, {SECOND}", name="weighed"):
        assert shares(met(lab, FEW)) == {"backend1": 9, "backend2": 3}


# --- for how long ---


def test_a_silent_client_is_forgotten_one_who_speaks_is_not(lab: Lab, servers: Servers) -> None:
    """By round-robin a client that comes anew meets the other backend."""
    with (
        balanced(lab, 'policy = "round-robin"', "idle_timeout = 1.0", name="short"),
        Speaker(lab, FEW[0]) as silent,
        Speaker(lab, FEW[1]) as speaking,
    ):
        assert (silent.meets(), speaking.meets()) == ("backend1", "backend2")
        assert sum(pending(lab, "short").values()) == 2
        deadline = time.monotonic() + 6

        def forgotten() -> bool:
            assert speaking.meets() == "backend2"
            assert time.monotonic() < deadline
            time.sleep(0.05)
            return pending(lab, "short") == {"backend1": 0, "backend2": 1}

        until(forgotten, 7, "the silent one is counted no more")
        assert Speaker(lab, FEW[2]).meets() == "backend1"
        assert silent.meets() == "backend2", "chosen anew"
        assert speaking.meets() == "backend2"


def test_with_all_places_taken_who_was_silent_longest_is_forgotten(
    lab: Lab, servers: Servers
) -> None:
    def bounded(text: str) -> str:
        of_pool = datagrams.pool(more='policy = "round-robin"')
        limits = f"\n[limits]\nmappings = {len(FEW)}\n"
        return text.partition("\n[[services]]")[0] + datagrams.service() + of_pool + limits

    with lab.configured(balancer=bounded):
        first = met(lab, FEW)
        met(lab, [address(100)])
        assert sum(pending(lab).values()) == len(FEW)
        assert met(lab, FEW[1:]) == {source: first[source] for source in FEW[1:]}


@contextmanager
def checked(lab: Lab) -> Iterator[Servers]:
    """The bridges look after the servers of this port, and the balancer asks the bridges."""
    with (
        serving(lab, CHECKED) as servers,
        bridged(lab, CHECKED, CHECK),
        balanced(lab, f"check = {{ {OFTEN} }}", port=CHECKED),
    ):
        until(lambda: len(up(lab)) == 2, 10, "both are up")
        yield servers


def up(lab: Lab) -> set[str]:
    return {row["name"] for row in rows(lab, "p") if row["state"] in ("up", "starting")}


def test_a_backend_that_goes_down_loses_its_clients_to_the_others(lab: Lab, path: str) -> None:
    with checked(lab) as servers:
        first = met(lab, FEW, to=TO_CHECKED)
        assert set(first.values()) == BOTH_NAMES
        servers.shut("backend2")
        until(lambda: up(lab) == {"backend1"}, 10, "it is found down")
        found = met(lab, FEW, to=TO_CHECKED)
        assert set(found.values()) == {"backend1"}
        servers.open("backend2")
        until(lambda: len(up(lab)) == 2, 10, "it is up again")
        assert met(lab, FEW, to=TO_CHECKED) == found, "who has a backend keeps it"
        newcomers = [address(number) for number in range(50, 80)]
        assert set(met(lab, newcomers, to=TO_CHECKED).values()) == BOTH_NAMES


def test_the_clients_of_others_stay_when_one_goes_down(lab: Lab, path: str) -> None:
    """Even where a choice made anew would be another: by round-robin it alternates."""
    with (
        serving(lab, CHECKED) as servers,
        bridged(lab, CHECKED, CHECK),
        balanced(
            lab, f'policy = "round-robin"\ncheck = {{ {OFTEN} }}', port=CHECKED, backends=THREE
        ),
        lab.address("backend1", BRIDGE3),
        extended(lab, "backend1", datagrams.entry(BRIDGE3, SERVER1, CHECKED)),
    ):
        first = met(lab, FEW, to=TO_CHECKED)
        servers.shut("backend2")
        until(lambda: "backend2" not in up(lab), 10, "it is found down")
        staying = [source for source, name in first.items() if name != "backend2"]
        before = given(lab)
        assert set(met(lab, staying, to=TO_CHECKED).values()) == {"backend1"}
        assert given(lab) == before, "nobody was placed anew"
        moved = met(lab, FEW, to=TO_CHECKED)
        assert set(moved.values()) == {"backend1"}
        anew = sum(given(lab).values()) - sum(before.values())
        assert anew == len(FEW) - len(staying)


def test_a_draining_backend_keeps_its_clients_and_gets_no_others(
    lab: Lab, servers: Servers
) -> None:
    with balanced(lab, 'policy = "round-robin"', name="drained"):
        first = met(lab, FEW)
        told(lab, "balancer", "drain", "drained/backend2")
        assert met(lab, FEW) == first
        newcomers = met(lab, [address(number) for number in range(50, 58)])
        assert set(newcomers.values()) == {"backend1"}
        told(lab, "balancer", "ready", "drained/backend2")


# --- on the way ---


def test_answers_go_straight_to_the_client(lab: Lab, servers: Servers) -> None:
    with (
        capture(lab, "balancer", protocol=socket.IPPROTO_UDP) as at_balancer,
        capture(lab, "client", protocol=socket.IPPROTO_UDP) as at_client,
    ):
        met(lab, FEW)
    answers = [packet for packet in at_client.packets if not packet.outgoing]
    assert len(answers) == len(FEW)
    assert {(packet.source, packet.ports[0]) for packet in answers} == {(VIP, PORT)}
    assert {packet.dscp for packet in answers} == {0}
    asked = [packet for packet in at_balancer.packets if packet.ports[1] == PORT]
    assert len([packet for packet in asked if not packet.outgoing]) == len(FEW)
    steered = [packet for packet in asked if packet.outgoing]
    assert {packet.dscp for packet in steered} == {1}
    assert {packet.ttl for packet in steered} == {63}
    assert [packet for packet in at_balancer.packets if packet.ports[0] == PORT] == []


def test_any_size_that_the_links_carry(lab: Lab, servers: Servers) -> None:
    with speakers(lab, 1) as (speaker,):
        for size in (0, 1, 17, 512, LINK - len("backend1 ")):
            data = bytes(index % 251 for index in range(size))
            for _ in range(3):
                assert speaker.asks(data) == data


def test_answers_over_the_mtu_arrive_in_fragments(lab: Lab, servers: Servers, path: str) -> None:
    sizes = (1500, 3900) if path == "nfqueue" else (1500, 3900, 9001)
    with (
        capture(lab, "client", protocol=socket.IPPROTO_UDP) as at_client,
        capture(lab, "balancer", protocol=socket.IPPROTO_UDP) as at_balancer,
        speakers(lab, 4) as four,
    ):
        for speaker in four:
            for size in sizes:
                asked = f"large {size}".encode()
                assert speaker.asks(asked) == asked + bytes(size)
    fragments = [packet for packet in at_client.packets if is_fragment(packet)]
    assert len(fragments) == 4 * sum(math.ceil(size / LINK) for size in sizes)
    assert {packet.source for packet in fragments} == {VIP}
    assert {packet.source for packet in at_balancer.packets} == {CLIENT}


def is_fragment(packet: Packet) -> bool:
    return bool(packet.data[6] & 0x3F or packet.data[7])


@pytest.mark.parametrize("path", ["nfqueue"], indirect=True)
def test_what_a_queue_cuts_off_is_dropped_by_name(lab: Lab, servers: Servers) -> None:
    with speakers(lab, 1) as (speaker,):
        counted = lab.growth(speaker.meets())
        speaker.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            speaker.asks(b"large 5000")
        assert counted.reaches("datagram_too_large")


def test_questions_over_the_mtu_are_dropped_by_name(lab: Lab, servers: Servers) -> None:
    counted = lab.growth("balancer")
    with speakers(lab, 1) as (speaker,):
        speaker.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            speaker.asks(bytes(1500))
        assert counted.reaches("fragment", 2)
        assert speaker.asks(b"and on") == b"and on"


TRACKING = "-t mangle -{} PREROUTING -m conntrack --ctstate INVALID -j RETURN"


def test_questions_over_the_mtu_arrive_where_the_kernels_put_them_together(
    lab: Lab, servers: Servers
) -> None:
    """As they do with connection tracking, the balancer's host and the bridge's; what a queue cuts
    off is dropped by name."""
    hosts = ("balancer", *SERVERS)
    for host in hosts:
        lab.run(host, "iptables", *TRACKING.format("A").split())
    try:
        with speakers(lab, 1) as (speaker,):
            for size in (1500, 3900):
                assert speaker.asks(bytes(size)) == bytes(size)
            counted = lab.growth("balancer")
            speaker.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                speaker.asks(bytes(5000))
            assert counted.reaches("datagram_too_large")
    finally:
        for host in hosts:
            lab.run(host, "iptables", *TRACKING.format("D").split())


def test_zero_checksums_stay_zero_and_others_are_right(lab: Lab, servers: Servers) -> None:
    """RFC 768: zero means that there is none. Both ways; as each server's own kernel has them."""
    raws = {name: lab.socket(name, socket.AF_INET, socket.SOCK_RAW, 17) for name in SERVERS}
    wire = lab.socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    try:
        with (
            capture(lab, "client", protocol=socket.IPPROTO_UDP) as at_client,
            Speaker(lab) as speaker,
        ):
            name = speaker.meets()
            ends = {"sport": speaker.end[1], "dport": PORT}
            for given in (0, None):
                packet = IP(src=CLIENT, dst=VIP) / UDP(chksum=given, **ends) / f"sum {given}"
                wire.sendto(bytes(packet), (VIP, 0))
                assert speaker.socket.recv(100) == f"{name} sum {given}".encode()
            servers.socket(name).setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
            assert speaker.asks(b"none") == b"none"
        received = {}
        raws[name].setblocking(False)
        while True:
            try:
                data = raws[name].recv(2000)
            except BlockingIOError:
                break
            received[data[28:]] = IP(data)
        assert received[b"sum 0"][UDP].chksum == 0
        made = received[b"sum None"]
        given = made[UDP].chksum
        assert given != 0
        del made[UDP].chksum
        assert IP(bytes(made))[UDP].chksum == given
        sums = {said(p): checksum(p) for p in at_client.packets if not p.outgoing}
        assert sums[name.encode() + b" none"] == 0
    finally:
        wire.close()
        for raw in raws.values():
            raw.close()


def test_a_closed_port_is_said_to_the_client_as_the_vips(lab: Lab, servers: Servers) -> None:
    with Speaker(lab) as speaker:
        name = speaker.meets()
        servers.shut(name)
        with capture(lab, "client", protocol=ICMP) as at_client:
            speaker.socket.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                speaker.socket.recv(100)
        (message,) = [packet for packet in at_client.packets if not packet.outgoing]
        assert (message.source, message.data[20], message.data[21]) == (VIP, 3, 3)
        quoted = IP(message.data[28:])
        assert (quoted.src, quoted.sport) == speaker.end
        assert (quoted.dst, quoted.dport) == (VIP, PORT)


def test_a_port_without_a_service_is_the_hosts_own(lab: Lab, servers: Servers) -> None:
    with Speaker(lab, to=(VIP, PORT + 9)) as speaker:
        speaker.socket.send(b"anybody?")
        with pytest.raises(OSError) as raised:
            speaker.socket.recv(100)
        assert raised.value.errno == errno.ECONNREFUSED


def test_who_asks_the_server_itself_is_answered_by_it(lab: Lab, servers: Servers) -> None:
    """The bridge is in nobody's way: not even in that of a client that asks by the VIP, too."""
    with Speaker(lab) as speaker:
        name = speaker.meets()
        direct = (SERVERS[name], PORT)
        with Speaker(lab, to=direct) as asking:
            assert asking.meets() == name
        assert speaker.meets() == name


def test_one_port_of_a_clients_speaks_to_two_vips(lab: Lab, servers: Servers) -> None:
    """To the server both would be one flow: the second VIP's has another port there."""
    second = datagrams.service(name="second").replace(f'"{VIP}"', f'"{VIP2}"')
    text = datagrams.service() + second.replace("dscp = 1", "dscp = 2").replace(
        'pool = "second"', 'pool = "p"'
    )
    known = f'\n[[balancers]]\ndscp = 2\nvip = "{VIP2}"\n'
    with (
        lab.address("balancer", VIP2),
        extended(lab, "backend1", known),
        extended(lab, "backend2", known),
        in_force(lab, text + datagrams.pool()),
        Speaker(lab, FEW[0], port=OWN_PORT) as one,
        Speaker(lab, FEW[0], port=OWN_PORT, to=(VIP2, PORT)) as other,
    ):
        for _ in range(3):
            assert one.meets(b"one") == other.meets(b"other")
        ports = {(peer[1], data) for _, peer, data in servers.got}
        assert len(ports) == 2
        assert (OWN_PORT, b"one") in ports
        assert (OWN_PORT, b"other") not in ports


# --- a server elsewhere ---


def test_a_server_elsewhere_sees_the_bridge(lab: Lab, path: str) -> None:
    """With source = "bridge" a server may be anywhere: its answers go back through the bridge."""
    port = PORT + 2
    entry = datagrams.entry(BRIDGE1, SERVER2, port, 'source = "bridge"\nports = "20000-20999"')
    with (
        extended(lab, "backend1", entry),
        balanced(lab, backends=FIRST, port=port),
        serving(lab, port) as servers,
        capture(lab, "client", protocol=socket.IPPROTO_UDP) as at_client,
    ):
        for source in FEW[:4]:
            with Speaker(lab, source, to=(VIP, port)) as speaker:
                assert speaker.meets() == "backend2"
                assert speaker.asks(b"again") == b"again"
        peers = {peer for _, peer, _ in servers.got}
    assert {source for source, _ in peers} == {BRIDGE1}
    assert len(peers) == 4
    assert all(20000 <= used <= 20999 for _, used in peers)
    answers = [packet for packet in at_client.packets if not packet.outgoing]
    assert {packet.source for packet in answers} == {VIP}
