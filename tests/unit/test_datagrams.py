"""UDP at the balancer: who gets which backend, for how long, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest

from balancer.core import config
from balancer.core.choice.maglev import key_hash
from tests.unit.datagram_stage import BRIDGES, CLIENT, T0, VIP, Stage, client
from tests.unit.scapy_oracle import icmp_error, tcp_packet, udp_packet

KEY = bytes([198, 51, 100, 7, 192, 0, 2, 10, 0, 0, 0, 53])


def packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


# --- who gets which backend ---


def test_the_first_datagram_is_steered_and_the_clients_others_follow_it_from_any_port() -> None:
    stage = Stage()
    bridge = stage.send()
    assert bridge in BRIDGES
    for port in range(1, 2000, 7):
        assert stage.send((CLIENT[0], port), tos=port & 255, ttl=port % 255 + 1) == bridge
    assert list(stage.table.mappings) == [KEY]
    assert stage.count("mappings_made") == 1
    assert stage.count("datagram_steered") == 1 + len(range(1, 2000, 7))


@pytest.mark.parametrize("policy", ["round-robin", "least-pending", "source", "maglev", "ring"])
def test_every_policy_spreads_clients_and_keeps_each(policy: str) -> None:
    stage = Stage(pool={"policy": policy, "table_size": 0})
    found = {number: stage.quick(client(number)) for number in range(90)}
    assert set(found.values()) == set(BRIDGES)
    if policy in ("round-robin", "least-pending"):
        assert stage.pending() == {"b0": 30, "b1": 30, "b2": 30}
    for number, bridge in found.items():
        assert stage.send(client(number, 50000)) == bridge


def test_the_hash_is_that_of_the_clients_address() -> None:
    stage = Stage()
    for number in range(50):
        member = stage.core.pools["p"].choose(key_hash(packed(client(number)[0])), b"", T0)
        assert member is not None
        assert stage.send(client(number)) == member.bridge


def test_each_flow_is_on_its_own_where_the_key_says_so() -> None:
    stage = Stage(pool={"key": ("source-port",), "policy": "round-robin"})
    first = [stage.send((CLIENT[0], port)) for port in (1, 2, 3)]
    assert sorted(map(str, first)) == sorted(BRIDGES)
    assert [stage.send((CLIENT[0], port)) for port in (1, 2, 3)] == first
    assert len(stage.table.mappings) == 3
    hashed = Stage(pool={"key": ("source-port",)})
    key = packed(CLIENT[0]) + (7).to_bytes(2, "big")
    member = hashed.core.pools["p"].choose(key_hash(key), b"", T0)
    assert member is not None
    assert hashed.send((CLIENT[0], 7)) == member.bridge


def test_a_backend_that_drains_keeps_its_clients_and_gets_no_new_ones() -> None:
    stage = Stage(pool={"policy": "round-robin"})
    found = {number: stage.send(client(number)) for number in range(30)}
    pool = stage.core.pools["p"]
    pool.drain(pool.members[0])
    assert all(stage.send(client(number)) == bridge for number, bridge in found.items())
    assert BRIDGES[0] not in {stage.send(client(number)) for number in range(100, 130)}


def test_a_datagram_in_a_vips_own_name_goes_nowhere() -> None:
    """The server's answer would come back to the VIP, and be answered, and so on."""
    stage = Stage()
    assert stage.send(VIP) is None
    assert stage.send((VIP[0], 9)) is None
    assert stage.count("udp_from_vip") == 2
    assert not stage.table.mappings


def test_nobody_can_take_it_and_nothing_is_said_or_kept() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    stage.check("b0", well=False)
    assert stage.send() is None
    assert stage.count("udp_no_backend") == 1
    assert not stage.core.out
    assert not stage.table.mappings
    stage.check("b0", well=True)
    assert stage.send() == BRIDGES[0]


def test_a_rate_limit_is_for_new_clients_flows() -> None:
    limit = config.RateLimit(1.0, burst=2)
    stage = Stage(pool={"key": ("source-port",), "limit": limit})
    assert [stage.send((CLIENT[0], port)) is None for port in (1, 2, 3, 1)] == [0, 0, 1, 0]
    assert stage.count("udp_over_rate_limit") == 1
    assert stage.send(client(9)) is not None
    stage.at(1.1)
    assert stage.send((CLIENT[0], 3)) is not None


# --- how long ---


def test_who_is_silent_for_the_idle_time_is_forgotten_and_who_is_not_stays() -> None:
    stage = Stage()
    stage.send(client(1))
    stage.send(client(2))
    for seconds in range(10, 80, 10):
        stage.at(seconds)
        stage.send(client(2))
    assert [key[3] for key in stage.table.mappings] == [2]
    assert stage.count("mappings_expired") == 1
    assert sum(stage.pending().values()) == 1
    stage.at(129)
    assert len(stage.table.mappings) == 1
    stage.at(135)
    assert not stage.table.mappings
    assert sum(stage.pending().values()) == 0


def test_a_service_has_an_idle_time_of_its_own() -> None:
    stage = Stage(idle_timeout=5.0)
    stage.send()
    stage.at(4.9)
    assert len(stage.table.mappings) == 1
    stage.at(8)
    assert not stage.table.mappings


def test_the_least_recently_used_goes_for_a_new_one() -> None:
    stage = Stage(limits={"mappings": 3})
    for number in (1, 2, 3):
        stage.at(number)
        stage.send(client(number))
    stage.at(4)
    stage.send(client(1))
    stage.at(5)
    stage.send(client(4))
    stage.send(client(5))
    assert sorted(key[3] for key in stage.table.mappings) == [1, 4, 5]
    assert stage.count("mappings_evicted") == 2
    assert sum(stage.pending().values()) == 3


def test_a_flood_of_forged_addresses_leaves_who_sends_and_is_bounded() -> None:
    stage = Stage(limits={"mappings": 100}, pool={"policy": "round-robin"})
    real = stage.quick(CLIENT)
    stage.core.pools["p"].drain(stage.core.pools["p"].members[BRIDGES.index(str(real))])
    for number in range(3000):
        stage.now += 0.0001
        assert stage.quick(client(number)) is not None
        if number % 50 == 0:
            assert stage.quick(CLIENT) == real, "it would have got another one"
    assert len(stage.table.mappings) == 100
    assert stage.count("mappings_evicted") == 3001 - 100
    assert sum(stage.pending().values()) == 100
    assert len(list(stage.table.every())) == 100, "what is kept besides is bounded, too"
    stage.at(200)
    assert not stage.table.mappings
    assert not list(stage.table.every())


# --- backends that come and go ---


def test_a_backends_clients_move_when_it_goes_down_and_no_others() -> None:
    stage = Stage(limits={"mappings": 10000})
    found = {number: stage.quick(client(number)) for number in range(2000)}
    down = str(found[0])
    stage.check(f"b{BRIDGES.index(down)}", well=False)
    stage.settle()
    moved = sum(bridge == down for bridge in found.values())
    assert stage.count("mappings_moved") == moved
    assert len(stage.table.mappings) == 2000 - moved
    now = {number: stage.quick(client(number)) for number in found}
    assert down not in now.values()
    assert all(now[number] == bridge for number, bridge in found.items() if bridge != down)
    assert stage.pending()[f"b{BRIDGES.index(down)}"] == 0
    stage.check(f"b{BRIDGES.index(down)}", well=True)
    stage.settle()
    assert {number: stage.quick(client(number)) for number in found} == now, "no way back unasked"


def test_a_turn_looks_at_a_bounded_number_of_mappings() -> None:
    stage = Stage()
    for number in range(2000):
        stage.quick(client(number))
    stage.settle()
    stage.check("b0", well=False)
    before, turns = len(stage.table.mappings), 0
    while stage.core.next_deadline() == 0:
        stage.core.timers(stage.now, 0)
        assert before - len(stage.table.mappings) <= 512
        before, turns = len(stage.table.mappings), turns + 1
    assert turns > 4


@pytest.mark.parametrize("left", [BRIDGES[:2], BRIDGES[1:]])
def test_a_reload_moves_only_the_clients_of_backends_that_are_gone(left: tuple[str, ...]) -> None:
    stage = Stage(pool={"policy": "round-robin"})
    found = {number: stage.quick(client(number)) for number in range(300)}
    stage.reload(bridges=left, pool={"policy": "round-robin"})
    stays = {number: bridge for number, bridge in found.items() if bridge in left}
    assert len(stage.table.mappings) == len(stays) == 200
    assert {number: stage.quick(client(number)) for number in stays} == stays
    assert {stage.quick(client(number)) for number in found} == set(left)


def test_a_reload_that_changes_dscp_time_and_bound_holds_for_who_is_there() -> None:
    stage = Stage()
    bridge = stage.send()
    stage.send(client(1))
    stage.reload(dscp=9, timeouts={"udp": 10.0}, limits={"mappings": 1})
    assert stage.send() == bridge, "with the DSCP that the stage looks for"
    stage.send(client(2))
    assert len(stage.table.mappings) == 1
    stage.at(26)  # looked at once in 15 seconds
    assert not stage.table.mappings


def test_a_lower_bound_is_reached_little_by_little() -> None:
    """All at once would hold up everybody's packets: half a minute for a million."""
    stage = Stage(limits={"mappings": 1000})
    for number in range(1000):
        stage.quick(client(number))
    stage.reload(limits={"mappings": 10})
    sizes = [1000]
    for number in range(2000, 2100):
        stage.quick(client(number))
        sizes.append(len(stage.table.mappings))
    assert max(before - after for before, after in pairwise(sizes)) <= 20
    assert sizes[-1] == 10
    assert sum(stage.pending().values()) == 10


def test_another_key_begins_anew() -> None:
    stage = Stage(pool={"policy": "round-robin"})
    stage.send()
    stage.reload(pool={"policy": "round-robin", "key": ("source-port",)})
    assert not stage.table.mappings
    assert len({stage.send((CLIENT[0], port)) for port in (1, 2, 3)}) == 3
    stage.reload(pool={"policy": "round-robin"})
    assert not stage.table.mappings


def test_a_service_that_is_configured_no_more_has_no_clients() -> None:
    stage = Stage()
    stage.send()
    stage.reload(port=54)
    assert not stage.table.mappings
    assert stage.packet(udp_packet(CLIENT, VIP, b"x")) is None
    assert stage.count("udp_no_service") == 1


def test_an_operator_ends_one() -> None:
    stage = Stage(pool={"policy": "round-robin"})
    first = stage.send()
    (mapping,) = stage.table.mappings.values()
    stage.core.datagrams.kill(mapping, stage.now)
    stage.core.datagrams.kill(mapping, stage.now)
    assert stage.count("mappings_killed") == 1
    assert stage.send() != first


# --- what is refused, and what is not UDP's ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({6: 0x20}, "fragment"),
        ({7: 1}, "fragment"),
        ({25: 15}, "bad_udp_length"),
        ({25: 17}, "bad_udp_length"),
        ({20: 0, 21: 0}, "zero_port"),
        ({3: 35}, "truncated"),
        ({0: 0x44}, "bad_ip_header"),
        ({0: 0x65}, "not_ipv4"),
        ({23: 54}, "udp_no_service"),
        ({19: 11}, "udp_no_service"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_reasons(changes: dict[int, int], reason: str, known: bool) -> None:
    stage = Stage()
    if known:
        stage.send()
    made = len(stage.table.mappings)
    data = bytearray(udp_packet(CLIENT, VIP, b"question", flags=""))
    for at, byte in changes.items():
        data[at] = byte
    assert stage.packet(bytes(data)) is None
    assert stage.count(reason) == 1
    assert len(stage.table.mappings) == made


@pytest.mark.parametrize("known", [True, False])
def test_what_a_queue_cuts_off_is_too_large(known: bool) -> None:
    stage = Stage()
    if known:
        stage.send()
    whole = udp_packet(CLIENT, VIP, bytes(5000))
    assert stage.packet(whole[:4016]) is None
    assert stage.count("datagram_too_large") == 1
    assert stage.send(payload=bytes(3900)) is not None


@pytest.mark.parametrize("known", [True, False])
def test_ip_options_a_zero_checksum_and_damage_go_on(known: bool) -> None:
    stage = Stage()
    if known:
        stage.send()
    assert stage.send(ip_options=b"\1\1\1\0") is not None
    assert stage.send(no_checksum=True) is not None
    assert stage.send(payload=b"") is not None
    damaged = bytearray(udp_packet(CLIENT, VIP, b"question"))
    damaged[30] ^= 1
    assert stage.packet(bytes(damaged)) is not None


def test_tcp_to_the_same_port_is_no_datagram_and_there_is_no_such_service() -> None:
    stage = Stage()
    stage.send()
    assert stage.packet(tcp_packet(CLIENT, VIP, flags="A")) is None
    assert stage.count("no_service") == 1


@pytest.mark.parametrize("key", ["source", "source-port"])
def test_an_icmp_error_about_an_answer_goes_to_the_clients_bridge(key: str) -> None:
    stage = Stage(pool={"key": (key,)})
    bridge = stage.send()
    quoted = udp_packet(VIP, CLIENT, b"answer" * 100)[:60]
    error = icmp_error("10.0.0.1", VIP[0], quoted, mtu=1400)
    expected = icmp_error("10.0.0.1", str(bridge), quoted, mtu=1400)
    steered = stage.packet(error)
    assert steered is not None
    assert (steered[1], steered[12:]) == (5 << 2, expected[12:])
    assert stage.count("icmp_steered") == 1
    other = icmp_error("10.0.0.1", VIP[0], udp_packet(VIP, client(5), b"")[:28], mtu=1400)
    assert stage.packet(other) is None
    assert stage.count("icmp_unknown_flow") == 1
    own = icmp_error("10.0.0.1", VIP[0], udp_packet((VIP[0], 5000), CLIENT, b"")[:28], mtu=1400)
    assert stage.packet(own) == own


# --- the access log ---


def test_a_mapping_that_is_over_is_told_of() -> None:
    stage = Stage()
    stage.core.access.wanted = True
    stage.send(payload=b"12")
    stage.at(2.5)
    bridge = stage.send(payload=b"1234")
    stage.at(70)
    (record,) = stage.core.access.take(10)
    assert record["client"] == CLIENT[0]
    assert record["address"] == "192.0.2.10:53"
    assert record["protocol"] == "udp"
    assert record["backend"] == f"b{BRIDGES.index(str(bridge))}"
    assert (record["datagrams"], record["bytes"]) == (2, 28 * 2 + 6)
    assert record["duration"] == 2.5
    assert record["why"] == "mappings_expired"
    assert 62.5 <= record["time"] - record["started"] <= 65
    flows = Stage(pool={"key": ("source-port",)})
    flows.core.access.wanted = True
    flows.send()
    flows.at(70)
    assert flows.core.access.take(10)[0]["client"] == "198.51.100.7:40000"
