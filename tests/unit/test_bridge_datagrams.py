"""UDP at the bridge: datagrams up and down, and what is remembered of them. Bytes are scapy's."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from packetbridge.core import config
from packetbridge.core.entry import Entry
from packetbridge.core.icmp_errors import Message
from tests.unit.bridge_stage import ADDRESS, MARK, SERVER, VIPS, Stage
from tests.unit.scapy_oracle import (
    Address,
    checksums_ok,
    icmp_error,
    ip_checksum_ok,
    tcp_packet,
    udp_packet,
)

CLIENT = ("198.51.100.7", 40000)
ROUTER = "198.51.100.1"


class Udp(Stage):
    """A bridge whose only backend is for datagrams."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"protocol": "udp", "handoff": False} | settings)

    def up(self, payload: bytes = b"q", client: Address = CLIENT, **changes: Any) -> bytes | None:
        """The verdict on a client's datagram, steered here."""
        changes = {"tos": 5 << 2} | changes
        return self.packet(udp_packet(client, ADDRESS, payload, **changes))

    def seen(self, payload: bytes = b"q", client: Address = CLIENT, **changes: Any) -> Address:
        """Whom the server sees as having sent it."""
        packet = self.up(payload, client, **changes)
        if packet is None:
            ((mark, packet),) = self.core.out
            self.core.out.clear()
            assert mark & ~63 == MARK
        assert checksums_ok(packet)
        assert (IP(packet).dst, IP(packet)[UDP].dport) == SERVER
        assert bytes(IP(packet)[UDP].payload) == payload
        return IP(packet).src, IP(packet)[UDP].sport

    def down(
        self, to: Address = CLIENT, payload: bytes = b"answer", **changes: Any
    ) -> bytes | None:
        """The verdict on a server's datagram."""
        return self.packet(udp_packet(SERVER, to, payload, **changes))

    def answered(self, to: Address = CLIENT) -> tuple[Address, Address]:
        """From where to where the server's answer goes on."""
        packet = self.down(to)
        assert packet is not None
        assert checksums_ok(packet)
        found = IP(packet)
        return (found.src, found[UDP].sport), (found.dst, found[UDP].dport)


@pytest.fixture
def stage() -> Udp:
    return Udp()


# --- translation ---


@pytest.mark.parametrize("payload", [b"", b"q", b"query!", bytes(1400)])
@pytest.mark.parametrize("tos", [5 << 2, 5 << 2 | 3])
def test_a_datagram_goes_to_the_server_and_its_answer_comes_from_the_vip(
    stage: Udp, payload: bytes, tos: int
) -> None:
    data = udp_packet(CLIENT, ADDRESS, payload, tos=tos, ttl=60)
    expected = udp_packet(CLIENT, SERVER, payload, tos=tos & 3, ttl=59)
    assert stage.packet(data) == expected
    answer = udp_packet(SERVER, CLIENT, payload, tos=0x28 | tos & 3)
    back = udp_packet((VIPS[5], 80), CLIENT, payload, tos=tos & 3, ttl=63)
    assert stage.packet(answer) == back
    assert (stage.count("datagrams_up"), stage.count("datagrams_down")) == (1, 1)
    assert stage.count("datagrams_up_bytes") == len(data)
    assert stage.count("datagrams_down_bytes") == len(answer)


def test_what_is_forwarded_has_its_hops_counted_by_the_kernel() -> None:
    stage = Udp(local=False)
    packet = stage.up(ttl=9)
    assert packet is not None
    assert IP(packet).ttl == 9


def test_no_checksum_stays_none(stage: Udp) -> None:
    expected = udp_packet(CLIENT, SERVER, b"q", no_checksum=True, ttl=63)
    assert stage.up(no_checksum=True) == expected
    back = udp_packet((VIPS[5], 80), CLIENT, b"answer", no_checksum=True, ttl=63)
    assert stage.down(no_checksum=True) == back


def test_a_checksum_that_comes_out_as_zero_is_not_none(stage: Udp) -> None:
    """RFC 768: it is sent as all ones."""
    plain = udp_packet(CLIENT, SERVER, b"\0\0", ttl=63)
    zero = IP(plain)[UDP].chksum.to_bytes(2, "big")  # the payload that makes the sum all ones
    packet = stage.up(zero)
    assert packet is not None
    assert IP(packet)[UDP].chksum == 0xFFFF
    assert checksums_ok(packet)


def test_damage_stays_visible(stage: Udp) -> None:
    for _ in range(100):
        data = bytearray(udp_packet(CLIENT, ADDRESS, b"query", tos=5 << 2))
        data[random.randrange(26, len(data))] ^= 1 << random.randrange(8)
        translated = stage.packet(bytes(data))
        assert translated is None or not checksums_ok(translated)


def test_ip_options_stay(stage: Udp) -> None:
    options = b"\x94\x04\0\0"  # router alert
    assert stage.up(ip_options=options) == udp_packet(
        CLIENT, SERVER, b"q", ttl=63, ip_options=options
    )
    back = udp_packet((VIPS[5], 80), CLIENT, b"answer", ttl=63, ip_options=options)
    assert stage.down(ip_options=options) == back


# --- what is not taken ---


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:6] + b"\x20\0" + data[8:], "fragment"),
        (lambda data: data[:6] + b"\0\x10" + data[8:], "fragment"),
        (lambda data: data[:24] + b"\0\x0b" + data[26:], "bad_udp_length"),
        (lambda data: data[:20] + b"\0\0" + data[22:], "zero_port"),
        (lambda data: data[:-3], "datagram_too_large"),
        (lambda data: data[:23] + b"\x51" + data[24:], "datagram_no_entry"),
        (lambda data: data[:1] + b"\x1c" + data[2:], "datagram_no_entry"),
        (lambda data: data[:2] + b"\0\x18" + data[4:24], "truncated"),
        (lambda data: data[:3], "truncated"),
    ],
)
def test_what_is_not_sound_or_not_for_us_is_dropped_by_name(
    stage: Udp, change: Any, reason: str
) -> None:
    assert stage.packet(change(udp_packet(CLIENT, ADDRESS, b"query", tos=5 << 2))) is None
    assert stage.count(reason) == 1
    assert stage.core.gauges()["mappings"] == 0


def test_tcp_to_the_same_port_is_another_matter(stage: Udp) -> None:
    assert stage.packet(tcp_packet(CLIENT, ADDRESS, flags="S", tos=5 << 2)) is None
    assert stage.count("no_entry") == 1


def test_a_tcp_backend_beside_has_the_same_address_and_port() -> None:
    stage = Udp()
    tcp = [
        Entry(config.Backend(*ADDRESS, *SERVER), dscp, vip, MARK, True, False)
        for dscp, vip in VIPS.items()
    ]
    stage.core.reconfigure([*stage.entries, *tcp], config.Limits(), config.Timeouts())
    assert stage.up() is not None
    assert stage.packet(tcp_packet(CLIENT, ADDRESS, flags="S", tos=5 << 2)) is None
    assert stage.count("syn_at_bridge") == 1
    assert [each.name for each in stage.core.entries] == [
        "203.0.113.20:80/5/udp", "203.0.113.20:80/6/udp", "203.0.113.20:80/5", "203.0.113.20:80/6",
    ]  # fmt: skip
    stage.core.drain_entry("203.0.113.20:80/5/udp", True)
    assert [each.draining for each in stage.core.entries] == [True, False, False, False]


def test_a_direct_clients_answer_is_let_by(stage: Udp) -> None:
    data = udp_packet(SERVER, CLIENT, b"answer")
    assert stage.packet(data) is data
    assert stage.count("direct") == 1


# --- mappings ---


def test_a_mapping_lasts_as_long_as_either_side_speaks() -> None:
    stage = Udp(timeouts={"udp": 60.0})
    stage.up()
    stage.at(59)
    assert stage.answered() == ((VIPS[5], 80), CLIENT)
    stage.at(118)
    assert stage.answered() == ((VIPS[5], 80), CLIENT)
    assert stage.core.gauges()["mappings"] == 1
    stage.at(180)
    data = udp_packet(SERVER, CLIENT, b"late")
    assert stage.packet(data) is data, "nobody's any more"
    assert stage.core.gauges()["mappings"] == 0
    assert stage.count("mappings_expired") == 1


def test_the_longest_idle_makes_room() -> None:
    stage = Udp(limits={"mappings": 3})
    for port in (1, 2, 3):
        stage.up(client=("198.51.100.7", port))
    stage.down(("198.51.100.7", 1))
    stage.up(client=("198.51.100.7", 4))
    assert stage.count("mappings_evicted") == 1
    assert stage.core.gauges()["mappings"] == 3
    found = [stage.answered(("198.51.100.7", port))[0] for port in (1, 2, 3, 4)]
    assert found == [(VIPS[5], 80), SERVER, (VIPS[5], 80), (VIPS[5], 80)]


def test_a_client_of_two_vips_keeps_its_answers_apart(stage: Udp) -> None:
    first, second = stage.seen(), stage.seen(tos=6 << 2)
    assert first == CLIENT
    assert second[0] == CLIENT[0]
    assert second != first
    assert stage.answered(first) == ((VIPS[5], 80), CLIENT)
    assert stage.answered(second) == ((VIPS[6], 80), CLIENT)
    assert stage.seen(tos=6 << 2) == second, "the same as before"
    assert stage.seen() == first
    assert stage.count("mappings_other_port") == 1


def test_what_another_vip_had_long_ago_is_free(stage: Udp) -> None:
    stage.up()
    stage.at(61)
    assert stage.seen(tos=6 << 2) == CLIENT
    assert stage.answered() == ((VIPS[6], 80), CLIENT)
    assert stage.core.gauges()["mappings"] == 1


@pytest.mark.parametrize("local", [True, False])
def test_the_bridges_own_address_as_source(local: bool) -> None:
    stage = Udp(source="bridge", ports=(5000, 5001), local=local)
    sources = [stage.seen(client=("198.51.100.7", port)) for port in (1, 2, 1)]
    assert sources == [(ADDRESS[0], 5000), (ADDRESS[0], 5001), (ADDRESS[0], 5000)]
    assert stage.answered((ADDRESS[0], 5001)) == ((VIPS[5], 80), ("198.51.100.7", 2))
    assert stage.up(client=("198.51.100.7", 3)) is None
    assert stage.count("no_source_port") == 1
    stage.at(61)
    assert stage.seen(client=("198.51.100.7", 3))[0] == ADDRESS[0]


def test_a_mapping_can_be_ended(stage: Udp) -> None:
    stage.up()
    (mapping,) = stage.core.datagrams.every(stage.now)
    stage.core.end(mapping, stage.now)
    data = udp_packet(SERVER, CLIENT, b"answer")
    assert stage.packet(data) is data
    assert stage.count("flows_killed") == 1


# --- another configuration ---


def test_clients_of_a_way_in_that_is_gone_go_on_until_they_are_silent(stage: Udp) -> None:
    stage.up()
    stage.core.reconfigure(stage.entries[1:], config.Limits(), config.Timeouts())
    assert stage.seen() == CLIENT
    assert stage.answered() == ((VIPS[5], 80), CLIENT)
    assert stage.up(client=("198.51.100.7", 9)) is None
    assert stage.count("datagram_former_entry") == 1
    assert [each.name for each in stage.core.former()] == [stage.entries[0].name]
    stage.at(62)
    assert stage.core.former() == []
    assert stage.up() is None
    assert stage.count("datagram_no_entry") == 1


def test_a_server_that_is_down_or_draining_is_still_translated_for(stage: Udp) -> None:
    """The balancer moves its clients; until then they may be lucky."""
    stage.core.mark_server(stage.entries[0].name, False, "no answer", stage.now)
    stage.core.drain_entry(stage.entries[0].name, True)
    assert stage.seen() == CLIENT
    assert stage.answered() == ((VIPS[5], 80), CLIENT)


# --- ICMP ---


@pytest.mark.parametrize("source", ["client", "bridge"])
@pytest.mark.parametrize("cut", [28, 100])
@pytest.mark.parametrize("no_checksum", [False, True])
def test_a_closed_ports_word_is_the_vips(source: str, cut: int, no_checksum: bool) -> None:
    stage = Udp(source=source)
    sees = stage.seen(b"query", no_checksum=no_checksum)
    received = udp_packet(sees, SERVER, b"query", ttl=63, no_checksum=no_checksum)
    error = icmp_error(SERVER[0], sees[0], received[:cut], kind=3, code=3)
    verdict = stage.packet(error)
    assert verdict is not None
    assert checksums_ok(verdict)
    found = IP(verdict)
    assert (found.src, found.dst) == (VIPS[5], CLIENT[0])
    assert (found[ICMP].type, found[ICMP].code) == (3, 3)
    quoted = verdict[28:]
    assert ip_checksum_ok(quoted)
    sent = udp_packet(CLIENT, (VIPS[5], 80), b"query", ttl=63, no_checksum=no_checksum)
    assert quoted == sent[:cut]
    assert stage.count("icmp_of_server") == 1


def test_a_servers_hosts_other_errors_are_its_own(stage: Udp) -> None:
    stage.up()
    for quoted in (
        udp_packet(CLIENT, (SERVER[0], 9), b"other port"),
        udp_packet(("198.51.100.8", 1), SERVER, b"other client"),
        tcp_packet(CLIENT, SERVER),
    ):
        error = icmp_error(SERVER[0], CLIENT[0], quoted, kind=3, code=3)
        assert stage.packet(error) is error
    torn = icmp_error(SERVER[0], CLIENT[0], quoted[:23], kind=3, code=3)
    assert stage.packet(torn) is torn
    assert stage.count("icmp_of_server_host") == 4


@pytest.mark.parametrize(("kind", "code"), [(3, 4), (3, 3), (11, 0)])
def test_errors_of_the_clients_side_go_to_the_server(stage: Udp, kind: int, code: int) -> None:
    stage.up()
    sent = udp_packet((VIPS[5], 80), CLIENT, bytes(1400), ttl=63)
    error = icmp_error(ROUTER, ADDRESS[0], sent[:128], kind=kind, code=code, mtu=1300)
    error = IP(error)
    error.tos, error.chksum = 5 << 2, None
    verdict = stage.packet(bytes(error))
    assert verdict is not None
    assert checksums_ok(verdict)
    assert (IP(verdict).src, IP(verdict).dst, IP(verdict).tos) == (ROUTER, SERVER[0], 0)
    assert verdict[28:] == udp_packet(SERVER, CLIENT, bytes(1400), ttl=63)[:128]
    assert stage.count(Message.TRANSLATED) == 1


def test_errors_about_nobodys_datagram_are_dropped(stage: Udp) -> None:
    sent = udp_packet((VIPS[5], 80), CLIENT, b"answer")
    error = IP(icmp_error(ROUTER, ADDRESS[0], sent, kind=3, code=3))
    error.tos, error.chksum = 5 << 2, None
    assert stage.packet(bytes(error)) is None
    assert stage.count("icmp_unknown_flow") == 1
    stage.up()
    forged = udp_packet((VIPS[6], 80), CLIENT, b"answer")
    error = IP(icmp_error(ROUTER, ADDRESS[0], forged, kind=3, code=3))
    error.tos, error.chksum = 5 << 2, None
    assert stage.packet(bytes(error)) is None, "of another VIP than its DSCP says"
    assert stage.count("icmp_unknown_flow") == 2
