"""A request that one backend cannot serve goes to the next of its key's order; and what the client
is told where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from balancer.core import config
from balancer.core.choice.maglev import key_hash
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, REQUEST, Client, Stage, handoff_of
from tests.unit.scapy_oracle import checksums_ok, fields

ORDER_OF = b"/a"


def order(stage: Stage) -> list[str]:
    """The bridges, in the order in which the request's key has them."""
    pool = stage.core.pools["p"]
    return [member.bridge for member in pool.ranking(key_hash(ORDER_OF))]


def handed(stage: Stage) -> tuple[Client, str]:
    client = Client(stage).connect()
    verdict = client.send(REQUEST, flags="PA")
    assert verdict is not None
    return client, fields(verdict)["dst"]


def in_progress(stage: Stage) -> dict[str, int]:
    return {m.bridge: m.pending for m in stage.core.pools["p"].members if m.pending}


def refuse(stage: Stage, client: Client, **how: Any) -> None:
    """What the bridge sends that cannot reach its server: the client's own segment."""
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST, **how)) is None


def test_the_same_request_goes_to_the_next_of_its_order() -> None:
    stage = Stage()
    client, first = handed(stage)
    assert in_progress(stage) == {first: 1}
    for place in (1, 2):
        refuse(stage, client)
        packet = stage.reply()
        assert packet["dst"] == order(stage)[place]
        assert (packet["payload"], packet["seq"]) == (REQUEST, (client.c + 1) % 2**32)
        assert packet["ack"] == (client.b + 1) % 2**32
        assert packet["raw_options"][:16] == client.option(models.CONFIRM, seq=client.c + 1)
        assert in_progress(stage) == {packet["dst"]: 1}
    assert stage.count("redispatched") == 2
    verdict = client.send(b"more", len(REQUEST))
    assert verdict is not None
    assert fields(verdict)["dst"] == order(stage)[2]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_no_more_backends_are_tried_than_configured(retries: int) -> None:
    stage = Stage(pool={"retries": retries})
    client, _ = handed(stage)
    tried = []
    for _ in range(retries):
        refuse(stage, client)
        tried.append(stage.reply()["dst"])
    assert tried == order(stage)[1 : 1 + retries]
    for attempt in range(retries + 1):  # and as often at the last of them
        refuse(stage, client, attempt=attempt)
        sent = [fields(packet) for packet in stage.sent()]
        if attempt == retries:
            (told,) = sent
            assert told["payload"].startswith(b"HTTP/1.1 503 ")
        else:
            assert not sent
            stage.at(stage.now - 5000.0 + 1.1)
            assert [fields(packet)["dst"] for packet in stage.sent()] == [order(stage)[retries]]
    assert in_progress(stage) == {}


def test_one_answer_of_a_bridge_is_heeded_once() -> None:
    stage = Stage()
    client, _ = handed(stage)
    word = client.answer(models.REFUSED, rest=REQUEST)
    assert stage.packet(word) is None
    assert len(stage.sent()) == 1
    assert stage.packet(word) is None
    assert not stage.sent()
    assert stage.count("bad_answer_mac") == 1, "it is the former bridge's"
    assert stage.count("redispatched") == 1


def test_a_refusal_with_another_request_in_it_is_not_believed() -> None:
    stage = Stage()
    client, _ = handed(stage)
    word = bytearray(client.answer(models.REFUSED, rest=REQUEST))
    forged = bytes(word).replace(b"/a", b"/b")
    stage.core.packet(forged, stage.now)
    assert not stage.sent()
    assert stage.count("redispatched") == 0


def test_a_refusal_without_a_request_or_damaged_is_dropped() -> None:
    stage = Stage()
    client, _ = handed(stage)
    assert stage.packet(client.answer(models.REFUSED)) is None
    assert stage.count("not_an_answer") == 1
    damaged = bytearray(client.answer(models.REFUSED, rest=REQUEST))
    damaged[34] ^= 1  # the window, which the MAC does not cover
    assert stage.packet(bytes(damaged)) is None
    assert stage.count("bad_tcp_checksum") == 1
    assert not stage.sent()
    refuse(stage, client)
    assert len(stage.sent()) == 1


def test_a_bridge_that_is_silent_is_passed_over_after_a_second() -> None:
    stage = Stage()
    client, first = handed(stage)
    stage.at(0.3)
    again = client.send(REQUEST, flags="PA")
    assert handoff_of(again)[7] & 7 == models.CONFIRM, "it is asked whether it is there"
    stage.at(0.99)
    assert not stage.sent()
    stage.at(1.01)
    handoff, forget = (fields(packet) for packet in stage.sent())
    assert (handoff["dst"], handoff["payload"]) == (order(stage)[1], REQUEST)
    assert (forget["dst"], forget["raw_options"][7] & 7) == (first, models.FORGET)
    stage.at(2.02)
    assert next(fields(packet)["dst"] for packet in stage.sent()) == order(stage)[2]
    assert stage.count("bridge_silent") == 2


@pytest.mark.parametrize("sign", ["accepted", "acknowledged"])
def test_a_bridge_that_is_there_keeps_it(sign: str) -> None:
    """However often the client repeats its request."""
    stage = Stage()
    client, _ = handed(stage)
    stage.at(0.3)
    client.send(REQUEST, flags="PA")
    if sign == "accepted":
        stage.packet(client.answer(models.ACCEPTED, len(REQUEST)))
    else:
        client.send(b"", len(REQUEST), acked=1000)
    for when in (0.9, 2.1, 4.5):
        stage.at(when)
        client.send(REQUEST, flags="PA")
    stage.at(8)
    assert not stage.sent()
    assert stage.count("redispatched") == 0


def test_the_only_bridge_is_waited_for() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    client, bridge = handed(stage)
    for when in (0.3, 0.9, 2.1):
        stage.at(when)
        verdict = client.send(REQUEST, flags="PA")
        assert verdict is not None
        assert fields(verdict)["dst"] == bridge
    assert not stage.sent()


def test_a_backend_that_is_down_is_not_chosen() -> None:
    stage = Stage()
    first, second, _ = order(stage)
    pool = stage.core.pools["p"]
    (member,) = [m for m in pool.members if m.bridge == first]
    pool.mark_down(member, "test", stage.now)
    assert handed(stage)[1] == second
    pool.mark_up(member, stage.now)
    stage.now += 0.1
    other = Client(stage, ("198.51.100.8", 1)).connect().send(REQUEST)
    assert other is not None
    assert fields(other)["dst"] == first


def test_where_nobody_is_there_the_client_is_told_and_the_connection_ends_in_order() -> None:
    stage = Stage()
    for member in stage.core.pools["p"].members:
        stage.core.pools["p"].mark_down(member, "test", stage.now)
    client = Client(stage).connect()
    assert client.send(REQUEST, flags="PA") is None
    told = stage.reply()
    said = told["payload"]
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in said
    assert (told["flags"], told["ack"]) == ("FPA", (client.c + 1 + len(REQUEST)) % 2**32)
    client.send(REQUEST, flags="PA")
    assert stage.reply()["payload"] == said, "as often as it asks"
    acked = len(said) + 1
    client.send(b"", len(REQUEST), acked=acked)
    assert not stage.sent()
    client.send(b"", len(REQUEST), acked=acked, flags="FA")
    assert stage.reply()["ack"] == (client.c + 2 + len(REQUEST)) % 2**32
    assert stage.count("not_served") == 1
    stage.at(40)
    assert stage.sizes() == {}


@pytest.mark.parametrize("over", ["429", "reset"])
def test_a_client_over_its_limit(over: str) -> None:

    limit = config.RateLimit(rate=0.5, burst=2, over=over)
    stage = Stage(pool={"limit": limit})
    verdicts = [Client(stage, ("198.51.100.7", port)).connect().send(REQUEST) for port in (1, 2, 3)]
    assert [verdict is not None for verdict in verdicts] == [True, True, False]
    told = stage.reply()
    if over == "429":
        assert told["payload"].startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 2\r\n" in told["payload"]
    else:
        assert told["flags"] == "R"
    assert stage.count("over_rate_limit") == 1
    assert Client(stage, ("198.51.100.8", 1)).connect().send(REQUEST) is not None
    stage.at(2.1)
    assert Client(stage, ("198.51.100.7", 4)).connect().send(REQUEST) is not None


def all_well(stage: Stage) -> None:
    for member in stage.core.pools["p"].members:
        stage.core.health.checked("p", member.name, True, "", stage.now)


def downs(stage: Stage) -> list[str]:
    return [member.name for member in stage.core.pools["p"].members if not member.up]


@pytest.mark.parametrize("fault", ["checksum", "acknowledgment", "flags"])
def test_what_no_bridge_would_answer_blames_none(fault: str) -> None:
    """Else whoever repeats a damaged request could have any backend taken for silent."""
    stage = Stage(pool={"check": _check()})
    all_well(stage)
    client, _ = handed(stage)
    stage.at(0.3)
    if fault == "checksum":
        damaged = bytearray(client.segment(REQUEST, flags="PA"))
        damaged[36] ^= 0x55
        assert stage.packet(bytes(damaged)) is None
        assert stage.count("bad_tcp_checksum") == 1
    elif fault == "acknowledgment":
        client.send(REQUEST, flags="PA", acked=2**32 - 5)
    else:
        client.send(REQUEST, flags="R")
    stage.at(5)
    assert not stage.sent()
    assert not stage.core.health.failures


def test_a_repetition_is_in_an_ip_header_of_ours() -> None:
    stage = Stage()
    client, _ = handed(stage)
    stage.at(0.3)
    again = client.send(REQUEST, flags="PA", ttl=2)
    assert again is not None
    assert again[8] == 64
    assert fields(again)["payload"] == REQUEST
    assert checksums_ok(again)


def test_a_silent_bridge_is_blamed_once_for_a_connection_however_often_it_is_repeated() -> None:
    stage = Stage(bridges=BRIDGES[:1], pool={"check": _check()})
    all_well(stage)
    client, _ = handed(stage)
    stage.at(0.3)
    for _ in range(100):
        client.send(REQUEST, flags="PA")
    stage.at(1.5)
    assert stage.count("bridge_silent") == 1
    stage.at(1.6)
    client.send(REQUEST, flags="PA")  # asked again after that, as it may be back
    stage.at(3)
    assert stage.count("bridge_silent") == 2


def test_one_client_alone_takes_no_backend_from_everybody() -> None:
    """Such as one that the server's own firewall rejects."""
    stage = Stage(bridges=BRIDGES[:1], pool={"check": _check(), "retries": 0})
    all_well(stage)
    for address in ("198.51.100.7", "198.51.100.8", "198.51.100.9"):
        assert downs(stage) == []
        for port in range(1, 6):
            client = Client(stage, (address, port)).connect()
            if client.send(REQUEST, flags="PA") is not None:
                refuse(stage, client)
            assert stage.reply()["payload"].startswith(b"HTTP/1.1 503 ")
    assert downs(stage) == ["b0"]
    assert sum(stage.core.health.failures.values()) == 11


def test_one_client_is_believed_again_after_a_good_check() -> None:
    stage = Stage(pool={"check": config.Check(fall=2)})
    health = stage.core.health
    all_well(stage)
    for _ in range(3):
        health.suspected("p", "b0", "bridge_silent", b"\1\1\1\1", stage.now)
        all_well(stage)
    health.suspected("p", "b0", "bridge_silent", b"\1\1\1\1", stage.now)
    assert downs(stage) == []
    health.suspected("p", "b0", "bridge_silent", b"\2\2\2\2", stage.now)
    assert downs(stage) == ["b0"]


def test_a_request_whose_connection_has_ended_at_its_bridge_goes_nowhere_else() -> None:
    """A server may have done what it asks: its end is all that the client gets."""
    stage = Stage()
    client, _ = handed(stage)
    stage.at(0.3)
    client.send(REQUEST, flags="PA")
    stage.packet(client.answer(models.ENDED))  # and the word that it was accepted got lost
    stage.at(0.5)
    client.send(REQUEST, flags="PA")
    stage.at(4)
    assert not stage.sent()
    assert stage.count("redispatched") == stage.count("bridge_silent") == 0


def test_nor_does_one_that_the_balancer_had_acknowledged() -> None:
    stage = Stage()
    client = Client(stage).connect()
    assert client.send(REQUEST[:10], flags="PA") is None
    stage.at(0.1)
    assert client.send(REQUEST[10:], 10, flags="PA") is None
    stage.sent()
    stage.packet(client.answer(models.ENDED))
    stage.at(4)
    assert not stage.sent()
    assert stage.core.gauges()["buffered_bytes"] == 0


def test_killed_with_their_backend() -> None:
    stage = Stage(pool={"on_down": "reset", "check": _check()})
    client, bridge = handed(stage)
    (member,) = [m for m in stage.core.pools["p"].members if m.bridge == bridge]
    for _ in range(3):
        stage.core.health.checked("p", member.name, False, "test", stage.now)
    assert not member.up
    stage.at(0.1)
    forget, ask = (fields(packet) for packet in stage.sent())
    assert (forget["dst"], ask["dst"]) == (bridge, client.address[0])
    assert ask["flags"] == "S"
    client.send(b"", len(REQUEST), acked=100)
    stage.at(0.5)
    client.send(b"", len(REQUEST), acked=100)
    assert member.pending == 0


def _check() -> Any:

    return config.Check()


def test_a_bridge_that_says_that_it_is_over_is_there() -> None:
    """What it has ended is asked of nobody else."""
    stage = Stage()
    client, _ = handed(stage)
    stage.at(0.3)
    client.send(REQUEST, flags="PA")
    stage.packet(client.answer(models.ENDED))
    stage.at(3)
    assert not stage.sent()
    assert stage.count("bridge_silent") == stage.count("redispatched") == 0


def test_parts_that_were_owned_are_not_repeated_once_it_is_over() -> None:
    stage = Stage()
    client = Client(stage).connect()
    client.send(REQUEST[:5])
    stage.at(0.2)
    assert stage.sent(), "the first bytes are acknowledged"
    client.send(REQUEST[5:], 5, flags="PA")
    assert stage.sent()
    stage.packet(client.answer(models.ENDED))
    stage.at(12)
    assert not stage.sent()
    assert stage.count("redispatched") == stage.count("handoff_unconfirmed") == 0


@pytest.mark.parametrize("bridges", [BRIDGES, BRIDGES[:1]], ids=["another", "the only"])
def test_what_is_given_back_after_all_goes_on(bridges: tuple[str, ...]) -> None:
    """Another bridge, which had it before, may have said that it is over."""
    stage = Stage(bridges=bridges)
    client, _ = handed(stage)
    stage.packet(client.answer(models.ENDED))
    assert in_progress(stage) == {}
    refuse(stage, client)
    stage.at(1.1 if len(bridges) == 1 else 0.1)
    at = fields(stage.sent()[0])["dst"]
    assert in_progress(stage) == {at: 1}
    stage.packet(client.answer(models.ACCEPTED, len(REQUEST), attempt=int(len(bridges) == 1)))
    stage.at(100)
    assert stage.core.gauges()["flows"] == 1, "it is as any other"


def test_what_is_repeated_and_damaged_is_handed_to_nobody() -> None:
    stage = Stage()
    client, _ = handed(stage)
    stage.at(0.3)
    damaged = bytearray(client.segment(REQUEST, flags="PA"))
    damaged[-7] ^= 1
    assert stage.packet(bytes(damaged)) is None
    assert stage.count("bad_tcp_checksum") == 1
    stage.at(3)
    assert not stage.sent()


def test_who_has_been_answered_is_not_served_as_new_ones_crowd_it_out() -> None:
    stage = Stage(limits={"waiting": 1})
    pool = stage.core.pools["p"]
    for member in pool.members:
        pool.mark_down(member, "test", stage.now)
    client = Client(stage).connect()
    client.send(REQUEST, flags="PA")
    assert stage.reply()["payload"].startswith(b"HTTP/1.1 503 ")
    for member in pool.members:
        pool.mark_up(member, stage.now)
    Client(stage, ("198.51.100.8", 1)).connect()
    assert stage.count("waiting_evicted") == 1
    assert client.send(REQUEST, flags="PA") is None
    assert not stage.sent()
    assert stage.count("closed_flow_again") == 1


def test_what_is_given_back_damaged_is_handed_to_nobody() -> None:
    stage = Stage()
    client, _ = handed(stage)
    damaged = bytearray(client.answer(models.REFUSED, rest=REQUEST))
    damaged[35] ^= 1  # the window, which is under no hash
    assert stage.packet(bytes(damaged)) is None
    assert stage.count("bad_tcp_checksum") == 1
    assert not stage.sent()


def test_where_its_pool_is_gone_the_one_that_took_over_from_it_counts() -> None:
    """By then another policy chose in it, and a backend had left it."""
    stage = Stage(pool={"policy": "least-pending"})
    client, first = handed(stage)
    (pool,) = stage.whole.pools
    fewer = tuple(each for each in pool.backends if each.bridge == first)
    changed = replace(pool, policy="round-robin", backends=fewer)
    for pools in ((changed,), (replace(pool, name="other"),)):
        services = tuple(replace(each, pool=pools[0].name) for each in stage.whole.services)
        reconfigure(stage, replace(stage.whole, services=services, pools=pools))
    refuse(stage, client)
    assert stage.count("no_backend") == 1, "nobody is left of that pool"


def reconfigure(stage: Stage, whole: config.Config) -> None:
    said: list[str] = []
    stage.core.reconfigure(whole, stage.paths, stage.now, said.append)
    while not said:
        stage.core.timers(stage.now, stage.wall - stage.now)
    assert said == [""]
