"""A VIP's port may have a TCP service and a UDP service, used from the same client's port."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP

from tests.unit.balancer_stage import REQUEST, VIP, Client, Stage
from tests.unit.scapy_oracle import icmp_error, tcp_packet, udp_packet


@pytest.fixture
def stage() -> Stage:
    """The usual one, with a UDP service beside."""
    stage = Stage()
    (tcp,) = stage.whole.services
    (pool,) = stage.whole.pools
    udp = replace(tcp, name="s/udp", protocol="udp", inspect="none", pool="u")
    whole = replace(stage.whole, services=(tcp, udp), pools=(pool, replace(pool, name="u")))
    stage.core.reconfigure(whole, stage.paths, stage.now, lambda _: None)
    stage.at(0)
    return stage


def test_neither_is_taken_for_the_other(stage: Stage) -> None:
    client = Client(stage).connect()
    handed = client.send(REQUEST)
    assert handed is not None
    datagram = udp_packet(client.address, VIP, b"question" * 10)
    steered = stage.packet(datagram)
    assert steered is not None
    assert IP(steered).proto == 17
    assert stage.packet(datagram) == steered
    assert stage.count("datagram_steered") == 2
    more = client.send(b"more", len(REQUEST))
    assert more is not None
    assert IP(more).proto == 6
    assert IP(more).dst == IP(handed).dst
    gauges = stage.core.gauges()
    assert (gauges["flows"], gauges["mappings"]) == (1, 1)


def test_a_datagram_that_looks_like_a_connections_segment_is_none(stage: Stage) -> None:
    """Byte for byte, but for the protocol: of the wrong length, as a datagram."""
    client = Client(stage, stamps=False).connect()
    client.send(REQUEST)
    segment = client.segment(b"more", len(REQUEST) + 100)
    assert stage.packet(segment) is not None
    before = stage.count("steered")
    assert stage.packet(segment[:9] + b"\x11" + segment[10:]) is None
    assert stage.count("bad_udp_length") == 1
    assert stage.count("steered") == before


def test_icmp_errors_go_by_what_they_quote(stage: Stage) -> None:
    client = Client(stage).connect()
    client.send(REQUEST)
    about_udp = icmp_error("10.0.0.1", VIP[0], udp_packet(VIP, client.address, b"x")[:28])
    assert stage.packet(about_udp) is None
    assert stage.count("icmp_unknown_flow") == 1
    about_tcp = icmp_error("10.0.0.1", VIP[0], tcp_packet(VIP, client.address)[:28])
    assert stage.packet(about_tcp) is not None
    assert stage.count("icmp_steered") == 1


def test_a_stop_that_waits_for_connections_waits_for_no_datagrams(stage: Stage) -> None:
    stage.packet(udp_packet(("198.51.100.9", 5), VIP, b"x"))
    stage.core.drain(stage.now)
    assert stage.core.remaining() == 0
    assert stage.packet(udp_packet(("198.51.100.10", 5), VIP, b"x")) is not None
