"""A real DNS server behind the VIP, asked by real programs, on both data paths."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import datagrams
from tests.e2e.capture import capture
from tests.e2e.conftest import lacking
from tests.e2e.datagrams import address, many_addresses
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.nameservers import HOSTS, PORT, TOOLS, Nameserver, dig, dnsperf, nameservers
from tests.e2e.pooled import FIRST, extended, in_force, pool
from tests.soak import Amount

pytestmark = pytest.mark.root

UDP = socket.IPPROTO_UDP
BOTH_NAMES = {"backend1", "backend2"}
FEW = [address(number) for number in range(1, 9)]
RATE = {"nfqueue": 1000, "ebpf": 20_000}  # queries a second that are no load
QUERIES = {"nfqueue": (3_200, 96_000), "ebpf": (51_200, 1_000_000)}


TCP = datagrams.service(PORT, 'inspect = "none"', "tcp").replace('"udp"', '"tcp"')
TCP = TCP.replace('pool = "tcp"', 'pool = "p"')


def by_tcp(bridge: str, server: str) -> str:
    """The same port's way for TCP."""
    return datagrams.entry(bridge, server, PORT, "handoff = false").replace('"udp"', '"tcp"')


@pytest.fixture(scope="module", params=["nfqueue", "ebpf"])
def path(running_lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    if missing := lacking(*TOOLS):
        pytest.skip(f"needs {missing}")
    with (
        datagrams.ready(running_lab, request.param, PORT),
        many_addresses(running_lab),
        extended(running_lab, "backend1", by_tcp(BRIDGE1, SERVER1)),
        extended(running_lab, "backend2", by_tcp(BRIDGE2, SERVER2)),
        in_force(running_lab, datagrams.service(PORT) + TCP + pool()),
    ):
        yield request.param


@pytest.fixture(scope="module")
def running_servers(running_lab: Lab) -> Iterator[dict[str, Nameserver]]:
    with nameservers(running_lab) as servers:
        yield servers


@pytest.fixture
def servers(lab: Lab, running_servers: dict[str, Nameserver], path: str) -> dict[str, Nameserver]:
    return running_servers


def test_questions_are_answered_by_the_vip(lab: Lab, servers: dict[str, Nameserver]) -> None:
    """dig takes no answer from elsewhere; the balancer sees questions only."""
    with (
        capture(lab, "client", protocol=UDP) as at_client,
        capture(lab, "balancer", protocol=UDP) as at_balancer,
    ):
        for number in range(1, 11):
            reply = dig(lab, f"host{number}")
            assert reply.records == [("A", f"192.0.2.{number}")], reply.said
            assert f"SERVER: {VIP}#53({VIP}) (UDP)" in reply.said
    answers = [packet for packet in at_client.packets if not packet.outgoing]
    assert len(answers) == 10
    assert {(packet.source, packet.ports[0]) for packet in answers} == {(VIP, PORT)}
    assert {packet.ports[1] for packet in at_balancer.packets} == {PORT}
    assert {packet.source for packet in at_balancer.packets} == {CLIENT}


def test_a_resolver_stays_with_its_server(lab: Lab, servers: dict[str, Nameserver]) -> None:
    """dig asks from a new port each time."""

    def who() -> dict[str, list[str]]:
        return {source: dig(lab, "who", "TXT", "-b", source).texts for source in FEW}

    first = who()
    assert {name for (name,) in first.values()} == BOTH_NAMES
    assert [who() for _ in range(2)] == [first] * 2


def test_answers_over_the_mtu_are_whole(lab: Lab, servers: dict[str, Nameserver]) -> None:
    """With EDNS (RFC 6891), in fragments; and truncated for who takes no more than 1,232 bytes."""
    for name, size in (("1400", 1400), ("large", 2300)):
        reply = dig(lab, name, "TXT", "+bufsize=4096")
        assert reply.size > size, reply.said
        assert len(reply.texts) == size // 190
        assert all(text.endswith("x" * 188) for text in reply.texts)
        assert dig(lab, name, "TXT", "+bufsize=1232").truncated


def test_what_was_truncated_is_asked_by_tcp(lab: Lab, servers: dict[str, Nameserver]) -> None:
    """As resolvers do: the same address and port, another service, in the same pool."""
    reply = dig(lab, "large", "TXT", "+bufsize=1232", "+noignore")
    assert len(reply.texts) == 12, reply.said
    assert f"SERVER: {VIP}#53({VIP}) (TCP)" in reply.said
    for source in FEW[:4]:
        (by_udp,) = dig(lab, "who", "TXT", "-b", source).texts
        (by_tcp,) = dig(lab, "who", "TXT", "-b", source, "+tcp").texts
        assert by_tcp == by_udp


def test_a_server_that_ended_is_known_at_once(lab: Lab, servers: dict[str, Nameserver]) -> None:
    """Its host's ICMP error reaches dig, as from the VIP."""
    (name,) = dig(lab, "who", "TXT").texts
    servers[name].stop()
    try:
        reply = dig(lab, "host1")
        assert reply.records == []
        assert "connection refused" in reply.said
    finally:
        servers[name].start()
    assert dig(lab, "who", "TXT").texts == [name]


def test_a_server_elsewhere(lab: Lab, servers: dict[str, Nameserver], path: str) -> None:
    """It answers the bridge, the bridge the client; in fragments where the kernel translates."""
    counted = lab.growth("backend1")
    port = 1053
    entry = datagrams.entry(BRIDGE1, SERVER2, port, 'source = "bridge"\nports = "20000-20999"')
    entry = entry.replace(f'"{SERVER2}:{port}"', f'"{SERVER2}:{PORT}"')
    with (
        extended(lab, "backend1", entry),
        datagrams.balanced(lab, backends=FIRST, port=port),
    ):
        for source in FEW[:3]:
            options = ("-p", f"{port}", "-b", source)
            assert dig(lab, "who", "TXT", *options).texts == ["backend2"]
            large = dig(lab, "large", "TXT", "+bufsize=4096", *options)
            assert len(large.texts) == (12 if path == "ebpf" else 0), large.said
    assert counted("fragment") == (0 if path == "ebpf" else 3), "the first of each"


def test_no_query_is_lost(
    lab: Lab,
    servers: dict[str, Nameserver],
    path: str,
    amount: Amount,
    report: Callable[[str], None],
) -> None:
    """At a rate that is no load for the direct path, from some ports of a client's."""
    rate, runs = RATE[path], amount(*QUERIES[path]) // HOSTS
    options = ("-Q", f"{rate}", "-c", "8", "-t", "5", "-n", f"{runs}")
    load = dnsperf(lab, *options, seconds=runs * HOSTS / rate)
    report(f"{load.sent:,} queries at {load.rate:,.0f}/s on {path}, {load.lost} lost")
    assert load.sent == runs * HOSTS
    assert load.lost == 0, load.said


@pytest.mark.parametrize("path", ["ebpf"], indirect=True)
def test_a_restart_loses_no_query(lab: Lab, servers: dict[str, Nameserver], path: str) -> None:
    """Either program's: who has a backend is the kernel's to carry meanwhile."""
    dig(lab, "host1")
    with ThreadPoolExecutor(1) as aside:
        runs = 5000 // HOSTS
        options = ("-Q", "1000", "-c", "4", "-t", "5", "-n", f"{runs}")
        load = aside.submit(dnsperf, lab, *options)
        for program in ("balancer", *servers):
            os.kill(lab.pid(program), signal.SIGTERM)
            until(lambda program=program: not lab.alive(program), 10, f"{program} has ended")
            lab.script("start", program)
            assert program != "balancer" or not load.done(), "it happened under load"
        done = load.result()
    assert (done.sent, done.lost) == (runs * HOSTS, 0), done.said
