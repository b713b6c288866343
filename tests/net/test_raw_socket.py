"""Packets sent by raw socket: what the host drops or refuses is an error."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP

from common.adapters.raw_socket import RawSockets
from tests.net.namespace import Namespace

pytestmark = pytest.mark.root

HOST, PEER = "192.168.33.10", "192.168.33.99"
PACKET = bytes(IP(src=HOST, dst=PEER) / TCP(sport=80, dport=40000, flags="SA"))
COUNT = 200


@pytest.fixture
def host() -> Iterator[Namespace]:
    namespace = Namespace(f"{os.environ.get('LAB_NAME', 'l3dsr')}-raw")
    try:
        namespace.shell(f"ip neighbour add {PEER} lladdr 02:00:00:00:00:99 dev eth0")
        yield namespace
    finally:
        namespace.delete()


def _send(count: int) -> Counter[str]:
    """What became of so many packets: "sent", or the name of the error."""
    sockets, results = RawSockets(), Counter[str]()
    for _ in range(count):
        try:
            sockets.send(0, PACKET)
        except OSError as error:
            results[errno.errorcode[error.errno or 0]] += 1
        else:
            results["sent"] += 1
    sockets.close()
    return results


def test_all_goes_out(host: Namespace) -> None:
    assert host.call(_send, COUNT) == {"sent": COUNT}


def test_what_the_interface_has_no_room_for_is_an_error(host: Namespace) -> None:
    # or the kernel's own, of IPv6, would be dropped as well
    host.shell("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1 || true")
    host.shell("tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 3000")
    results = host.call(_send, COUNT)
    assert set(results) == {"sent", "ENOBUFS"}
    statistics = host.shell("tc -s qdisc show dev eth0")
    assert f"dropped {results['ENOBUFS']}," in statistics


def test_what_the_socket_has_no_room_for_is_an_error(host: Namespace) -> None:
    host.shell("tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 100000000")
    results = host.call(_send, 20_000)
    assert set(results) == {"sent", "EAGAIN"}


def test_the_buffer_is_as_large_as_asked_for(host: Namespace) -> None:
    """Whatever net.core.wmem_max allows others."""
    host.shell("tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 100000000")
    assert host.call(_send, 5_000) == {"sent": 5_000}


def test_what_the_firewall_refuses_is_an_error(host: Namespace) -> None:
    host.shell("iptables -A OUTPUT -p tcp --sport 80 -j DROP")
    assert host.call(_send, COUNT) == {"EPERM": COUNT}


def test_without_a_route_it_is_an_error(host: Namespace) -> None:
    host.shell("ip link set eth0 down")
    assert host.call(_send, COUNT) == {"ENETUNREACH": COUNT}
