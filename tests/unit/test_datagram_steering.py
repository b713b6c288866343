"""Steering of datagrams against scapy: the bridge's address, the VIP's DSCP, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.datagrams.steering import DatagramSteering
from common.core.datagram import Datagram
from tests.unit.scapy_oracle import checksums_ok, udp_packet

VIP, BRIDGE, DSCP = ("192.0.2.10", 53), ("203.0.113.20", 53), 37
FIELDS = st.fixed_dictionaries(
    {
        "payload": st.binary(max_size=60),
        "ident": st.integers(0, 65535),
        "tos": st.integers(0, 255),
        "ttl": st.integers(0, 255),
        "no_checksum": st.booleans(),
        "flags": st.sampled_from(["", "DF"]),
    }
)
IP_OPTIONS = st.sampled_from([b"", b"\1\1\1\0", b"\x94\4\0\0"])
CLIENTS = st.tuples(
    st.tuples(*[st.integers(1, 254)] * 4).map(lambda octets: ".".join(map(str, octets))),
    st.integers(1, 65535),
)
STEERING = DatagramSteering(bytes([192, 0, 2, 10]), bytes([203, 0, 113, 20]), DSCP)


@given(CLIENTS, FIELDS, IP_OPTIONS)
def test_steered_is_as_if_scapy_had_sent_it_there(
    client: tuple[str, int], fields: dict[str, Any], ip_options: bytes
) -> None:
    fields |= {"ip_options": ip_options}
    expected = udp_packet(client, BRIDGE, **fields | {"tos": DSCP << 2 | fields["tos"] & 3})
    steered = STEERING.datagram(Datagram(udp_packet(client, VIP, **fields)))
    assert steered == expected
    assert checksums_ok(steered)


@given(CLIENTS, FIELDS, st.lists(st.tuples(st.integers(10, 80), st.integers(0, 255)), max_size=4))
def test_the_short_way_is_the_long_one_for_damaged_datagrams_too(
    client: tuple[str, int], fields: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    """Checksums that were wrong stay wrong by the same amount, unless the damage made it none."""
    packet = bytearray(udp_packet(client, VIP, **fields))
    for at, change in damage:
        if at in (10, 11) or (at >= 26 and at < len(packet)):
            packet[at] ^= change
    data = bytes(packet)
    datagram, tos = Datagram(data), STEERING.tos(data[1])
    assert STEERING.plain(data) == datagram.rewritten(dst=STEERING.bridge, tos=tos)
    assert checksums_ok(STEERING.plain(data)) == checksums_ok(data)


def test_a_sum_that_comes_out_as_zero_is_sent_as_all_ones() -> None:
    """For "none" would be said of it otherwise; found by going through all payloads of 2 bytes."""
    seen = set()
    data = udp_packet(("198.51.100.7", 40000), VIP, b"\0\0")
    for word in range(65536):
        payload = word.to_bytes(2, "big")
        old = int.from_bytes(data[26:28], "big")
        total = (0xFFFF - old + word) % 0xFFFF
        checksum = (0xFFFF - total) or 0xFFFF
        steered = STEERING.plain(data[:26] + checksum.to_bytes(2, "big") + payload)
        seen.add(steered[26:28])
    assert b"\0\0" not in seen
    assert b"\xff\xff" in seen
