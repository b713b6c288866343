"""Both programs while keys change: what they sign with, and what they still accept."""

from __future__ import annotations

import pytest

from common.core.keys import RETIRED_SECONDS, Keys, derive
from tests.unit import balancer_stage, bridge_stage, models
from tests.unit.balancer_stage import Client, handoff_of
from tests.unit.bridge_stage import REQUEST, Connection
from tests.unit.scapy_oracle import tcp_packet

NEW_SHARED = bytes([7]) * 32
OLD, NEW = derive(models.SHARED_KEY), derive(NEW_SHARED)


# --- balancer ---


def test_a_cookie_of_the_old_key_is_good_while_it_is_accepted() -> None:
    stage = balancer_stage.Stage()
    client = Client(stage).shake()
    stage.core.rekey([NEW], stage.now)
    assert client.send() is None
    assert stage.count("connections") == 1


def test_a_retired_key_is_forgotten_in_time() -> None:
    stage = balancer_stage.Stage()
    client = Client(stage).connect()
    handoff_of(client.send(balancer_stage.REQUEST))
    stage.core.rekey([NEW], stage.now)
    stage.packet(client.answer(models.ACCEPTED))
    assert stage.count("bad_answer_mac") == 0
    stage.at(RETIRED_SECONDS + 1)
    stage.packet(client.answer(models.ACCEPTED))
    assert stage.count("bad_answer_mac") == 1


@pytest.mark.parametrize("shared", [models.SHARED_KEY, NEW_SHARED])
def test_an_answer_under_either_key_is_heeded(shared: bytes) -> None:
    stage = balancer_stage.Stage()
    client = Client(stage).connect()
    handoff_of(client.send(balancer_stage.REQUEST))
    stage.core.rekey([OLD, NEW], stage.now)
    stage.packet(client.answer(models.REFUSED, rest=balancer_stage.REQUEST, shared=shared))
    assert stage.count("backend_refused") == 1


def test_cookies_and_handoffs_are_signed_with_the_first_key() -> None:
    stage = balancer_stage.Stage()
    for held, shared in (
        ([OLD, NEW], models.SHARED_KEY),
        ([NEW, OLD], NEW_SHARED),
        ([NEW], NEW_SHARED),
    ):
        stage.core.rekey(held, stage.now)
        client = Client(stage, ("198.51.100.7", 40000 + len(held) + shared[0])).shake()
        assert client.b == models.cookie(
            client.address,
            balancer_stage.VIP,
            client.c,
            wall=stage.wall,
            mss_index=3,
            sack=True,
            scale=8,
            shared=shared,
        )
        option = handoff_of(client.send(balancer_stage.REQUEST))
        assert option == models.handoff_option(
            models.HANDOFF,
            client.address,
            balancer_stage.VIP,
            c=client.c,
            b=client.b,
            seq=client.c + 1,
            wall=stage.wall,
            mss=1460,
            scales=(8, 7),
            sack=True,
            shared=shared,
        )


def test_a_handoff_is_repeated_under_the_key_of_the_day() -> None:
    """A bridge that has lost the old key by then takes it."""
    stage = balancer_stage.Stage()
    client = Client(stage).connect()
    first = handoff_of(client.send(balancer_stage.REQUEST))
    stage.core.rekey([NEW], stage.now)
    second = handoff_of(client.send(balancer_stage.REQUEST))
    assert first[:7] == second[:7]
    assert (first[7] & 7, second[7] & 7) == (models.HANDOFF, models.CONFIRM)
    assert second == models.handoff_option(
        models.CONFIRM,
        client.address,
        balancer_stage.VIP,
        c=client.c,
        b=client.b,
        seq=client.c + 1,
        wall=stage.wall,
        mss=1460,
        scales=(8, 7),
        sack=True,
        shared=NEW_SHARED,
    )


# --- bridge ---


@pytest.mark.parametrize(
    ("held", "taken"),
    [([OLD], False), ([OLD, NEW], True), ([NEW, OLD], True), ([NEW], True)],
)
def test_a_handoff_under_a_key_in_force_is_taken(held: list[Keys], taken: bool) -> None:
    stage = bridge_stage.Stage()
    stage.core.rekey(held, stage.now)
    Connection(stage).handoff(option={"shared": NEW_SHARED})
    assert bool(stage.sent()) == taken
    assert stage.count("bad_handoff_mac") == (not taken)
    assert stage.count("handoffs_of_other_key") == (held == [OLD, NEW])


@pytest.mark.parametrize("shared", [models.SHARED_KEY, NEW_SHARED])
def test_answers_are_under_the_key_that_the_balancer_used_last(shared: bytes) -> None:
    stage = bridge_stage.Stage()
    stage.core.rekey([OLD, NEW], stage.now)
    connection = Connection(stage)
    connection.handoff(option={"shared": shared})
    syn = stage.reply()
    stage.packet(
        tcp_packet(bridge_stage.SERVER, connection.client, flags="RA", ack=syn["seq"] + 1), 0
    )
    refused = stage.reply()
    expected = connection.answer(models.REFUSED, REQUEST, shared=shared)
    assert refused["raw_options"][:16] == expected
    assert refused["payload"] == REQUEST


def test_answers_under_a_key_that_is_no_longer_in_force_are_not_given() -> None:
    stage = bridge_stage.Stage()
    connection = Connection(stage).open()
    stage.core.rekey([NEW], stage.now)
    stage.at(RETIRED_SECONDS + 1)
    connection.from_server(flags="R")
    (ended,) = stage.sent()
    assert (
        ended["raw_options"][8:16]
        == models.handoff_option(
            models.ENDED,
            connection.client,
            connection.vip,
            c=connection.c,
            b=connection.b,
            seq=connection.c + 1,
            wall=stage.wall,
            shared=NEW_SHARED,
        )[8:]
    )


def test_established_flows_do_not_notice() -> None:
    stage = bridge_stage.Stage()
    connection = Connection(stage).open()
    stage.core.rekey([NEW], stage.now)
    assert connection.from_server(b"response", acked=len(REQUEST)) is not None
    assert connection.send(at=len(REQUEST), acked=8) is not None
