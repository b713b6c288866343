"""Clients that the kernel has shaken hands with, as the balancer's core learns of them."""

from __future__ import annotations

import pytest

from balancer.core.fast_path import Arrival, NoFastPath
from balancer.core.flow import Flow
from tests.unit.balancer_stage import REQUEST, VIP, Client, Stage, handoff_of
from tests.unit.models import FORGET, flow_bytes


class Shaking(NoFastPath):
    """A kernel that does handshakes, and has no room for records but those that it is made to."""

    answers = True

    def __init__(self) -> None:
        self.arrived: list[Arrival] = []
        self.told: list[tuple[float, float]] = []

    def answer(self, services: object, key: bytes, until: float, wall_offset: float) -> None:
        self.told.append((until, wall_offset))

    def arrivals(self) -> list[Arrival]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def steer(self, flow: Flow, at_once: bool = False) -> None:
        flow.fast = False


@pytest.fixture
def kernel() -> Shaking:
    return Shaking()


@pytest.fixture
def stage(kernel: Shaking) -> Stage:
    return Stage(fast=kernel)


def arrival(client: Client, round_trip: int = 0) -> Arrival:
    key = flow_bytes(client.address, VIP)
    return Arrival(key, client.c, client.b, round_trip, client.stage.now)


def test_who_arrives_is_waited_for(stage: Stage, kernel: Shaking) -> None:
    client = Client(stage).shake()
    kernel.arrived.append(arrival(client, round_trip=120))
    assert stage.core.gauges()["waiting"] == 1
    assert stage.count("connections") == 1
    option = handoff_of(client.send(REQUEST))
    assert option == client.option(0, seq=(client.c + 1) % 2**32, rtt_code=8)
    assert stage.core.gauges()["waiting"] == 0


def test_a_request_that_was_quicker_is_not_disturbed(stage: Stage, kernel: Shaking) -> None:
    client = Client(stage).shake()
    known = arrival(client)
    handoff_of(client.send(REQUEST))
    kernel.arrived.append(known)
    assert stage.core.gauges()["waiting"] == 0
    assert stage.core.gauges()["flows"] == 1
    assert stage.count("flows_replaced") == 0
    assert not stage.sent()


def test_a_connection_that_is_over_does_not_come_again(stage: Stage, kernel: Shaking) -> None:
    client = Client(stage).shake()
    known = arrival(client)
    client.send()
    client.send(flags="R")
    kernel.arrived.append(known)
    assert stage.core.gauges()["waiting"] == 0
    assert stage.count("connections") == 1


def test_a_newer_one_of_the_same_port_ends_the_older(stage: Stage, kernel: Shaking) -> None:
    old = Client(stage).shake()
    handoff_of(old.send(REQUEST))
    new = Client(stage, c=4_000_000).shake()
    kernel.arrived.append(arrival(new))
    stage.core.gather(stage.now)
    assert stage.count("flows_replaced") == 1
    option = handoff_of(stage.sent()[0])
    assert option == old.option(FORGET, seq=(old.c + 1) % 2**32)
    handoff_of(new.send(REQUEST))
    assert stage.core.gauges()["flows"] == 1


@pytest.mark.parametrize("asked", [False, True], ids=["waiting", "handed"])
def test_a_newer_ones_request_is_known_by_its_cookie(stage: Stage, asked: bool) -> None:
    """The SYN was answered by the kernel, and its report was lost: nobody has told the core."""
    old = Client(stage).connect()
    if asked:
        handoff_of(old.send(REQUEST))
    new = Client(stage, c=4_000_000)
    new.b = Client(Stage(), c=4_000_000).shake().b  # whose SYN this core has not seen
    handoff_of(new.send(REQUEST))
    assert stage.count("flows_replaced") == 1
    assert stage.core.gauges()["flows"] == 1


@pytest.mark.parametrize("late", [REQUEST, b""], ids=["request", "acknowledgment"])
def test_what_comes_late_of_an_older_one_does_not_end_the_newer(
    stage: Stage, kernel: Shaking, late: bytes
) -> None:
    """Its cookie is good for two minutes, and a network may keep a copy for as long."""
    old = Client(stage).connect()
    handoff_of(old.send(REQUEST))
    new = Client(stage, c=4_000_000).shake()
    kernel.arrived.append(arrival(new))
    stage.core.gather(stage.now)
    stage.sent()
    assert old.send(late) is None
    assert stage.count("flows_replaced") == 1
    assert not stage.sent()
    handoff_of(new.send(REQUEST))


def test_the_older_one_goes_on_where_nothing_is_proven(stage: Stage) -> None:
    client = Client(stage).connect()
    handoff_of(client.send(REQUEST))
    for position in (len(REQUEST), 3_000_000):
        assert client.send(b"more", at=position) is not None
        assert client.send(at=position + 4, acked=1_000_000) is not None
    assert stage.count("flows_replaced") == 0


def test_the_kernel_is_told_every_half_second_and_when_clocks_step(
    stage: Stage, kernel: Shaking
) -> None:
    core, now = stage.core, stage.now
    core.timers(now, 1000.0)
    core.timers(now + 0.1, 1000.0005)
    core.timers(now + 0.2, 1000.002)
    core.timers(now + 0.6, 1000.002)
    core.timers(now + 0.7, 1000.002)
    assert kernel.told == [(now + 3, 1000.0), (now + 3.2, 1000.002), (now + 3.7, 1000.002)]
