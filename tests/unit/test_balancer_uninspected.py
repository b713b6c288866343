"""Connections that nobody reads, at the balancer: who gets their SYN, and what else of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from balancer.core import config
from balancer.core.flow import State
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, DSCP, REQUEST, VIP, Client, Stage
from tests.unit.scapy_oracle import checksums_ok, fields, tcp_packet


def stage_of(**settings: Any) -> Stage:
    return Stage(inspect="none", **settings)


def to(verdict: bytes | None) -> str:
    """The bridge that a packet goes on to, which is sound."""
    assert verdict is not None
    assert checksums_ok(verdict)
    seen = fields(verdict)
    assert seen["dscp"] == DSCP
    bridge: str = seen["dst"]
    assert bridge in BRIDGES
    return bridge


def opened(stage: Stage, **client: Any) -> tuple[Client, str]:
    """A client whose SYN was steered, and where to."""
    asking = Client(stage, **client)
    return asking, to(asking.syn())


def standing(stage: Stage, **client: Any) -> tuple[Client, str]:
    """The same with the handshake's last acknowledgment, of a number that no balancer knows."""
    asking, bridge = opened(stage, **client)
    asking.b = 0x7654321
    assert to(asking.send()) == bridge
    return asking, bridge


def answer(stage: Stage, client: Client, kind: int, bridge: str, **model: Any) -> None:
    """A bridge's word; the balancer's own initial sequence number is 0 here."""
    client.b = 0
    about = {} if kind == models.ENDED else {"bridge": bridge}
    assert stage.packet(client.answer(kind, **about, **model)) is None


def pending(stage: Stage) -> dict[str, int]:
    return {m.bridge: m.pending for m in stage.core.pools["p"].members if m.pending}


def test_a_syn_goes_on_as_it_came() -> None:
    stage = stage_of()
    client = Client(stage)
    packet = client.syn(tos=0xB9, flags="SEC", payload=b"early")
    assert packet is not None
    seen = fields(packet)
    assert (seen["seq"], seen["flags"], seen["payload"]) == (client.c, "SEC", b"early")
    assert seen["raw_options"] == client.offer()
    assert (seen["dst"], seen["dscp"], packet[1] & 3) == (to(packet), DSCP, 1)
    assert not stage.sent(), "nobody answers it here"
    assert pending(stage) == {to(packet): 1}
    assert stage.core.gauges()["opening"] == 1


def test_all_that_follows_goes_there_too() -> None:
    stage = stage_of(pool={"policy": "round-robin"})
    client, bridge = standing(stage)
    again = [client.syn(), client.syn(seq=77), client.send(b"x" * 100), client.send(flags="R")]
    again += [client.send(flags="FA", at=9), client.send(acked=1 << 20)]
    assert {to(packet) for packet in again} == {bridge}
    assert stage.sizes() == {"flows": 1}
    assert stage.count("connections") == 1
    assert stage.count("syn") == stage.count("handoffs") == 0


@pytest.mark.parametrize(
    ("key", "alike"), [(("source",), True), (("source-port",), False), ((), True)]
)
def test_who_is_chosen(key: tuple[str, ...], alike: bool) -> None:
    stage = stage_of(pool={"key": key})
    bridges = {opened(stage, address=("198.51.100.7", port))[1] for port in range(4000, 4040)}
    assert (len(bridges) == 1) is alike
    others = {opened(stage, address=(f"198.51.100.{n}", 4000))[1] for n in range(40)}
    assert others == set(BRIDGES)


def test_where_nobody_is_there_a_syn_is_refused_as_by_a_host() -> None:
    stage = stage_of(bridges=BRIDGES[:1])
    pool = stage.core.pools["p"]
    pool.mark_down(pool.members[0], "x", stage.now)
    client = Client(stage)
    assert client.syn() is None
    reply = stage.reply()
    assert (reply["flags"], reply["seq"], reply["ack"]) == ("RA", 0, client.c + 1)
    assert stage.count("not_served") == 1


def test_drained_it_takes_no_new_ones() -> None:
    stage = stage_of()
    old, bridge = standing(stage)
    stage.core.drain(stage.now)
    assert Client(stage, ("198.51.100.8", 1)).syn() is None
    assert stage.reply()["flags"] == "RA"
    assert to(old.send(b"on")) == bridge
    assert stage.core.remaining() == 1


def test_a_limit_refuses() -> None:
    stage = stage_of(pool={"limit": config.RateLimit(rate=0.001, burst=2)})
    for port in (1, 2):
        opened(stage, address=("198.51.100.7", port))
    assert Client(stage, ("198.51.100.7", 3)).syn() is None
    assert stage.reply()["flags"] == "RA"
    assert stage.count("over_rate_limit") == 1


@pytest.mark.parametrize("flags", ["SA", "SF", "SR", "SU"])
def test_what_begins_nothing(flags: str) -> None:
    stage = stage_of()
    assert Client(stage).syn(flags=flags) is None
    assert stage.count("bad_syn_flags") == 1
    assert not stage.sent()
    assert stage.core.gauges()["opening"] == 0


# --- a bridge that cannot serve ---


def test_a_syn_that_is_given_back_goes_on_at_once() -> None:
    stage = stage_of()
    client, first = opened(stage)
    syn = client.offer()
    answer(stage, client, models.REFUSED, first)
    forget, again = (fields(packet) for packet in stage.sent())
    assert (forget["dst"], forget["raw_options"][7] & 7) == (first, models.FORGET)
    assert again["dst"] != first
    assert (again["flags"], again["seq"], again["raw_options"]) == ("S", client.c, syn)
    assert pending(stage) == {again["dst"]: 1}
    assert to(client.syn()) == again["dst"]
    answer(stage, client, models.REFUSED, first)
    assert not stage.sent(), "of a bridge that was passed over"
    assert stage.count("bad_answer_mac") == 1


def test_where_there_is_no_other_the_client_asks_again() -> None:
    stage = stage_of(bridges=BRIDGES[:1])
    client, only = opened(stage)
    answer(stage, client, models.REFUSED, only)
    assert not stage.sent()
    assert to(client.syn()) == only


def test_a_bridge_that_is_silent_is_passed_over() -> None:
    stage = stage_of()
    client, first = opened(stage)
    stage.at(10.0)
    assert not stage.sent(), "one SYN alone is no question"
    assert to(client.syn()) == first
    stage.at(10.2)
    assert not stage.sent()
    stage.at(10.3)
    forget, again = (fields(packet) for packet in stage.sent())
    assert (forget["dst"], again["flags"]) == (first, "S")
    assert stage.count("syn_silent") == 1
    ((_, warned),) = stage.core.ledger.warnings
    assert warned.startswith("1 SYNs repeated; is packetbridge running at ")
    assert "with handoff = false, DSCP" in warned
    assert to(client.send()) == again["dst"] != first


@pytest.mark.parametrize("how", ["silent", "refused"])
def test_what_becomes_of_syns_does_not_take_a_backend_from_everybody(how: str) -> None:
    """Anybody can send them, and in names that no kernel takes: nobody answers such."""
    stage = stage_of(bridges=BRIDGES[:1], pool={"check": config.Check(rise=1, fall=1)})
    stage.core.health.checked("p", "b0", True, "", stage.now)
    for number in range(20):
        client, only = opened(stage, address=(f"224.0.0.{number}", 4000))
        if how == "refused":
            answer(stage, client, models.REFUSED, only)
        else:
            assert to(client.syn()) == only
        stage.at(1.0 + number)
    (member,) = stage.core.pools["p"].members
    assert member.up
    kind = {"silent": "bridge_silent", "refused": "backend_refused"}[how]
    assert stage.core.health.failures["p", "b0", kind] == 20


def test_a_bridge_whose_server_has_answered_keeps_it() -> None:
    """The answer is on its way to a client that is far away: another server's would be wrong."""
    stage = stage_of()
    client, first = opened(stage)
    stage.at(1.0)
    assert to(client.syn()) == first
    answer(stage, client, models.ACCEPTED, first)
    for at in (3.0, 7.0, 15.0):
        stage.at(at)
        assert to(client.syn()) == first
    stage.at(20.0)
    assert not stage.sent()
    assert to(client.send()) == first


def test_a_backend_that_is_down_gets_no_repetition() -> None:
    stage = stage_of()
    client, first = opened(stage)
    pool = stage.core.pools["p"]
    (member,) = (m for m in pool.members if m.bridge == first)
    pool.mark_down(member, "x", stage.now)
    second = to(client.syn())
    assert second != first
    assert [fields(p)["dst"] for p in stage.sent()] == [first], "which is told to forget"


# --- ends ---


def test_a_bridges_word_frees_its_place_and_the_port() -> None:
    stage = stage_of(pool={"policy": "round-robin"})
    client, first = standing(stage)
    answer(stage, client, models.ENDED, first)
    assert not pending(stage)
    assert to(client.send()) == first, "late packets still go there"
    assert to(client.syn(seq=5)) != first, "a new connection is chosen for"
    assert sum(pending(stage).values()) == 1


def test_an_opening_one_can_end_too() -> None:
    """The server has refused, and its RST went to the client."""
    stage = stage_of()
    client, first = opened(stage)
    answer(stage, client, models.ENDED, first)
    assert not pending(stage)
    stage.at(80.0)
    assert stage.core.gauges()["opening"] == 0


def test_the_operators_word_ends_both_sides() -> None:
    stage = stage_of()
    client, bridge = standing(stage)
    stage.core.kill(stage.core.table.find(models.flow_bytes(client.address, VIP)), stage.now)
    forget, ask = (fields(packet) for packet in stage.sent())
    assert (forget["dst"], ask["flags"], ask["src"]) == (bridge, "S", VIP[0])
    assert client.send(acked=900) is None, "the challenge's answer (RFC 5961 section 4)"
    reply = stage.reply()
    assert (reply["flags"], reply["seq"]) == ("R", client.b + 1 + 900)


# --- bounds ---


def test_syns_cost_no_connection_that_stands() -> None:
    stage = stage_of(limits={"waiting": 10, "flows": 10})
    old, bridge = standing(stage)
    for port in range(1000, 1100):
        opened(stage, address=("192.0.2.99", port))
    assert stage.core.gauges()["opening"] == 10
    assert stage.count("opening_evicted") == 90
    assert sum(pending(stage).values()) == 11
    assert to(old.send(b"on")) == bridge
    stage.at(200.0)
    assert stage.core.gauges()["opening"] == 0
    assert sum(pending(stage).values()) == 1


def test_a_full_table_ends_nobody_at_its_bridge() -> None:
    stage = stage_of(limits={"flows": 2})
    first, _ = standing(stage, address=("198.51.100.1", 1))
    stage.at(2.0)
    for n in (2, 3):
        standing(stage, address=(f"198.51.100.{n}", 1))
    assert stage.count("flows_evicted") == 1
    assert not stage.sent()
    assert to(first.send(b"x")) == stage.bridge_of(bytes((198, 51, 100, 1)))


# --- what is not known (any more) ---


def test_by_a_hash_a_connection_is_picked_up_again() -> None:
    stage = stage_of()
    lost = Client(stage)
    lost.b = 99
    bridge = stage.bridge_of(bytes((198, 51, 100, 7)))
    assert to(lost.send(b"going on")) == bridge
    flow = stage.core.table.find(models.flow_bytes(lost.address, VIP))
    assert flow is not None
    assert flow.state is State.OPENING, "it may be nobody's"
    assert to(lost.send(b"x", 8)) == bridge
    assert flow.state is State.HANDED
    assert stage.count("flows_picked_up") == 1
    answer(stage, lost, models.ENDED, bridge)
    assert not pending(stage), "its bridge has seen the SYN, and knows another first number"


@pytest.mark.parametrize("policy", ["round-robin", "least-pending", "source"])
def test_without_one_it_is_reset_when_it_insists(policy: str) -> None:
    stage = stage_of(pool={"policy": policy})
    lost = Client(stage)
    lost.b = 99
    assert lost.send(b"going on") is None
    stage.at(0.5)
    assert lost.send(b"going on") is None
    assert {fields(packet)["flags"] for packet in stage.sent()} == {"R"}
    assert stage.count("unknown_flow_reset") == 1


@pytest.mark.parametrize("flags", ["R", "F", "P", ""])
def test_what_is_not_picked_up(flags: str) -> None:
    stage = stage_of()
    assert Client(stage).send(flags=flags) is None
    assert stage.core.gauges()["opening"] == 0


def test_a_cookie_means_nothing_here() -> None:
    """What acknowledges one is steered like all else."""
    stage = stage_of()
    client = Client(stage)
    client.b = models.cookie(
        client.address, VIP, client.c, wall=stage.wall, mss_index=3, sack=True, scale=8
    )
    to(client.send(b"GET / HTTP/1.1\r\n\r\n"))
    assert stage.core.gauges()["waiting"] == 0


def test_icmp_about_one_goes_to_its_bridge() -> None:
    stage = stage_of()
    client, bridge = standing(stage)
    quoted = tcp_packet(VIP, client.address, seq=1, ack=1, flags="A", payload=bytes(50))
    error = bytes(IP(src="10.0.0.9", dst=VIP[0]) / ICMP(type=3, code=4, nexthopmtu=1200) / quoted)
    assert to_any(stage.packet(error)) == bridge


def to_any(packet: bytes | None) -> str:
    assert packet is not None
    return ".".join(map(str, packet[16:20]))


def test_what_is_over_goes_to_nobody_else() -> None:
    """A bridge that gives it back after its word that it is over; or that is asked before."""
    stage = stage_of()
    client, first = opened(stage)
    stage.at(1.0)
    assert to(client.syn()) == first
    answer(stage, client, models.ENDED, first)
    answer(stage, client, models.REFUSED, first)
    stage.at(5.0)
    assert not stage.sent()
    assert not pending(stage)


# --- a service that is inspected from now on, or not any more ---


def reload(stage: Stage, inspect: Any) -> None:
    reconfigure(stage, *(replace(each, inspect=inspect) for each in stage.whole.services))


def reconfigure(stage: Stage, *services: config.Service) -> None:
    said: list[str] = []
    whole = replace(stage.whole, services=services)
    stage.core.reconfigure(whole, stage.paths, stage.now, said.append)
    while not said:
        stage.core.timers(stage.now, stage.wall - stage.now)
    assert said == [""]


def test_what_was_read_goes_on_and_what_is_new_is_not() -> None:
    stage = Stage()
    client = Client(stage).connect()
    bridge = to(client.send(REQUEST, flags="PA"))
    waiting = Client(stage, ("198.51.100.9", 1)).connect()
    reload(stage, "none")
    assert to(client.send(at=len(REQUEST), acked=9)) == bridge
    assert to(waiting.send(REQUEST, flags="PA"))
    assert stage.count("handoffs") == 2
    new, _ = standing(stage, address=("198.51.100.8", 7))
    assert to(new.send(b"\x16\x03 not read"))
    client.stage.packet(client.answer(models.ENDED))
    assert to(client.syn(seq=99)), "its port's next connection"
    assert not stage.sent()


def test_what_was_not_read_goes_on_and_what_is_new_is() -> None:
    stage = stage_of()
    client, bridge = standing(stage)
    reload(stage, "http")
    assert to(client.send(b"x")) == bridge
    assert to(client.syn()) == bridge, "a live connection's is the server's to judge"
    Client(stage, ("198.51.100.8", 7)).connect()
    answer(stage, client, models.ENDED, bridge)
    assert client.syn(seq=99) is None
    assert stage.reply()["flags"] == "SA"


def test_forged_handshakes_leave_those_that_are_read_their_place() -> None:
    """Nobody proves an address here: SYN and acknowledgment may both be forged."""
    stage = Stage()
    stage.whole = replace(stage.whole, limits=config.Limits(flows=4))
    (reading,) = stage.whole.services
    reconfigure(stage, reading, replace(reading, name="ssh", port=22, inspect="none"))
    client = Client(stage).connect()
    bridge = to(client.send(REQUEST, flags="PA"))
    stage.now += 60
    for number in range(20):
        ends = (f"198.51.100.{number + 20}", 7), (VIP[0], 22)
        for flags in "SA":
            assert to(stage.packet(tcp_packet(*ends, seq=number, flags=flags)))
        stage.now += 2
    gauges = stage.core.gauges()
    assert (gauges["flows"], gauges["opening"]) == (3, 18)
    assert stage.count("flows_evicted") == 0
    assert to(client.send(at=len(REQUEST), acked=9)) == bridge
