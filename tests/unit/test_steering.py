"""Steering against scapy: the bridge's address, the VIP's DSCP, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.steering import Steering
from common.core.segment import Segment
from tests.unit.scapy_oracle import checksums_ok, tcp_packet

VIP, BRIDGE, DSCP = ("192.0.2.10", 80), ("203.0.113.20", 80), 37
U32, U16 = st.integers(0, 2**32 - 1), st.integers(0, 65535)

FIELDS = st.fixed_dictionaries(
    {
        "seq": U32,
        "ack": U32,
        "window": U16,
        "ident": U16,
        "urgent": U16,
        "reserved": st.integers(0, 7),
        "tos": st.integers(0, 255),
        "ttl": st.integers(0, 255),
        "flags": st.sampled_from(["A", "PA", "FA", "R", "U", "SEC"]),
        "options": st.binary(max_size=40).filter(lambda raw: len(raw) % 4 == 0),
        "payload": st.binary(max_size=60),
    }
)
IP_OPTIONS = st.sampled_from([b"", b"\1\1\1\0", b"\x94\4\0\0"])
CLIENTS = st.tuples(
    st.tuples(*[st.integers(1, 254)] * 4).map(lambda octets: ".".join(map(str, octets))), U16
)


def steering() -> Steering:
    return Steering(bytes([192, 0, 2, 10]), bytes([203, 0, 113, 20]), DSCP)


@given(CLIENTS, FIELDS)
def test_plain(client: tuple[str, int], fields: dict) -> None:  # type: ignore[type-arg]
    expected = tcp_packet(client, BRIDGE, **fields | {"tos": DSCP << 2 | fields["tos"] & 3})
    steered = steering().plain(tcp_packet(client, VIP, **fields))
    assert steered == expected
    assert checksums_ok(steered)


@given(CLIENTS, FIELDS, IP_OPTIONS)
def test_segment(client: tuple[str, int], fields: dict, ip_options: bytes) -> None:  # type: ignore[type-arg]
    fields |= {"ip_options": ip_options}
    expected = tcp_packet(client, BRIDGE, **fields | {"tos": DSCP << 2 | fields["tos"] & 3})
    assert steering().segment(Segment(tcp_packet(client, VIP, **fields))) == expected


@given(CLIENTS, FIELDS, IP_OPTIONS, FIELDS)
def test_segment_with_other_options(
    client: tuple[str, int],
    fields: dict,  # type: ignore[type-arg]
    ip_options: bytes,
    others: dict,  # type: ignore[type-arg]
) -> None:
    fields |= {"ip_options": ip_options}
    changed = {"tos": DSCP << 2 | fields["tos"] & 3, "options": others["options"]}
    segment = Segment(tcp_packet(client, VIP, **fields))
    assert steering().segment(segment, others["options"]) == tcp_packet(
        client, BRIDGE, **fields | changed
    )


@given(CLIENTS, FIELDS, st.lists(st.tuples(st.integers(10, 100), st.integers(0, 255)), max_size=4))
def test_plain_is_segment_for_damaged_packets_too(
    client: tuple[str, int],
    fields: dict,  # type: ignore[type-arg]
    damage: list[tuple[int, int]],
) -> None:
    """Checksums that were wrong stay wrong by the same amount."""
    packet = bytearray(tcp_packet(client, VIP, **fields))
    for at, change in damage:
        if at in (10, 11) or (at >= 20 and at != 32 and at < len(packet)):
            packet[at] ^= change
    data = bytes(packet)
    assert steering().plain(data) == steering().segment(Segment(data))
    assert checksums_ok(steering().plain(data)) == checksums_ok(data)
