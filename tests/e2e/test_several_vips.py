"""Two VIPs with a DSCP each, as of two balancers, and the same backends behind both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, VIP, Lab, until

pytestmark = pytest.mark.root

VIP2 = "192.168.33.11"

# No connection of the kernel's own choice comes from these (net.ipv4.ip_local_port_range).
OWN_PORTS = iter(range(62_100, 63_000))


def extended(addition: str) -> Callable[[str], str]:
    return lambda text: text + addition


@pytest.fixture(scope="module", autouse=True)
def two_vips(running_lab: Lab) -> Iterator[None]:
    """A second VIP with a DSCP of its own, for the same backends."""
    lab = running_lab
    service = f"""
[[services]]
name = "second"
vip = "{VIP2}"
port = 80
dscp = 2

[[services.backends]]
name = "backend1"
bridge = "{BRIDGE1}"

[[services.backends]]
name = "backend2"
bridge = "{BRIDGE2}"
"""
    balancer = f'\n[[balancers]]\ndscp = 2\nvip = "{VIP2}"\n'
    with (
        lab.address("balancer", VIP2),
        lab.configured(
            balancer=extended(service), backend1=extended(balancer), backend2=extended(balancer)
        ),
    ):
        yield


def test_each_vip_answers_as_itself(lab: Lab) -> None:
    with capture(lab, "balancer") as packets:
        answers = {vip: lab.curl("/1k", to=vip) for vip in (VIP, VIP2)}
    for vip, dscp in ((VIP, 1), (VIP2, 2)):
        assert answers[vip].status == 200
        port = answers[vip].port
        assert {packet.dscp for packet in _steered(packets.packets, port)} == {dscp}


def test_same_port_to_both_vips_at_once(lab: Lab) -> None:
    """At the server both would be one connection: the second gets another source port there."""
    path = lab.path_for("1k", "backend1")
    body = (LAB / "www" / "1k").read_bytes()
    for _ in range(10):
        port = next(OWN_PORTS)
        with ExitStack() as stack:
            both = [
                stack.enter_context(lab.connect(to=(vip, 80), port=port)) for vip in (VIP, VIP2)
            ]
            for _ in range(3):
                for tcp in both:
                    tcp.sendall(web.request(path))
                for tcp in both:
                    response = web.response(tcp)
                    assert (response.body, response.backend) == (body, "backend1")


def test_same_port_downloads_from_both_vips(lab: Lab) -> None:
    body = (LAB / "www" / "1m").read_bytes()
    port = next(OWN_PORTS)
    with lab.connect(port=port) as first, lab.connect(to=(VIP2, 80), port=port) as second:
        for tcp in (first, second):
            tcp.sendall(web.request("/1m", close=True))
        assert web.rest(first).endswith(body)
        assert web.rest(second).endswith(body)


@pytest.mark.parametrize("first", ["client", "server"])
def test_port_again_at_the_other_vip(lab: Lab, first: str) -> None:
    """One connection after another, within a second, by turns to both VIPs: to the server they all
    come from one client port, or from one that the bridge found for it."""
    path = lab.path_for("1k", "backend1")
    body = (LAB / "www" / "1k").read_bytes()
    port = next(OWN_PORTS)
    with lab.sysctl("client", net_ipv4_tcp_max_tw_buckets=0):
        for turn in range(20):
            with lab.connect(to=((VIP, VIP2)[turn % 2], 80), port=port) as tcp:
                started = time.monotonic()
                web.fetch_and_end(tcp, path, body, first)
                assert time.monotonic() - started < 0.18
            until(lambda: lab.closed(port), 2, "the server has acknowledged the client's end")


def test_port_again_at_the_other_vip_while_only_the_server_remembers(lab: Lab) -> None:
    """A client has a clock of timestamps for each address that it talks to: what is later at one
    VIP may be earlier at the other, to the server, which still waits in TIME-WAIT."""
    path = lab.path_for("1k", "backend1")
    body = (LAB / "www" / "1k").read_bytes()
    port = next(OWN_PORTS)
    hasty = extended("\n[timeouts]\nclosing = 1.0\nlinger = 0.0\n")
    with lab.configured(backend1=hasty), lab.sysctl("client", net_ipv4_tcp_max_tw_buckets=0):
        for turn in range(3):
            assert lab.states("backend1", port) == ["TIME-WAIT"] * (turn > 0)
            with lab.connect(to=((VIP, VIP2)[turn % 2], 80), port=port) as tcp:
                started = time.monotonic()
                web.fetch_and_end(tcp, path, body, "server")
                assert time.monotonic() - started < 0.18
            until(lambda: not lab.counters("backend1")["flows"], 8, "the bridge forgets")


def _steered(packets: list[Packet], port: int) -> list[Packet]:
    return [p for p in packets if p.destination in (BRIDGE1, BRIDGE2) and port in p.ports]
