"""Paths that carry less than an Ethernet frame."""

from __future__ import annotations

import hashlib

import pytest

from tests.e2e import web
from tests.e2e.capture import SYN, capture
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, Lab

pytestmark = pytest.mark.root

MTU = 1400
HEADERS, HANDOFF = 40, 16


def test_a_narrow_path_to_the_bridges(lab: Lab) -> None:
    """Clients are told of it in the MSS, so that a full segment passes, handoff option and all."""
    for bridge in (BRIDGE1, BRIDGE2):
        lab.run("balancer", "ip", "route", "add", bridge, "dev", "eth0", "mtu", f"{MTU}")
    try:
        lab.script("restart", "balancer")
        with lab.no_offloads(), capture(lab, "balancer", "eth0") as recorded:
            head = web.request("/1k", "X-Filler: " + "x" * 6000, close=True)
            with lab.connect() as tcp:
                tcp.sendall(head)
                assert web.rest(tcp).endswith((LAB / "www" / "1k").read_bytes())
            stored = lab.curl("/upload/narrow", "-T", str(LAB / "www" / "1m"))
            packets = list(recorded.packets)
    finally:
        for bridge in (BRIDGE1, BRIDGE2):
            lab.run("balancer", "ip", "route", "del", bridge, "dev", "eth0", "mtu", f"{MTU}")
        lab.script("restart", "balancer")
    assert stored.status in (201, 204)
    assert _digest("upload/narrow") == _digest("1m")
    syn_acks = [packet for packet in packets if packet.flags & SYN and packet.outgoing]
    told = {int.from_bytes(packet.options[2], "big") for packet in syn_acks}
    assert told == {MTU - HEADERS - HANDOFF}
    steered = [packet for packet in packets if packet.destination in (BRIDGE1, BRIDGE2)]
    assert max(len(packet.data) for packet in steered) == MTU


def _digest(name: str) -> bytes:
    with (LAB / "www" / name).open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
