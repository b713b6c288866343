"""The balancer's clock steps: what it knows goes on; what only a cookie knew is told."""

from __future__ import annotations

import pytest

from tests.unit import models
from tests.unit.balancer_stage import REQUEST, Client, Stage, handoff_of
from tests.unit.scapy_oracle import fields

STEPS = pytest.mark.parametrize("step", [-3600, -200, 200, 3600])


def set_clock(stage: Stage, step: float) -> None:
    stage.core.timers(stage.now, stage.wall - stage.now + step)


@STEPS
def test_a_connection_that_stands_is_handed_over(step: float) -> None:
    stage = Stage()
    client = Client(stage).connect()
    set_clock(stage, step)
    assert handoff_of(client.send(REQUEST))


@STEPS
def test_a_client_between_syn_ack_and_ack_is_told(step: float) -> None:
    """When it repeats its request: at first it may be one that was overtaken."""
    stage = Stage()
    client = Client(stage).shake()
    set_clock(stage, step)
    assert client.send() is None
    assert client.send(REQUEST) is None
    assert not stage.sent()
    stage.now += 0.3
    assert client.send(REQUEST) is None
    answer = fields(stage.sent()[0])  # the others ask the bridges to end it, too
    assert (answer["flags"], answer["seq"]) == ("R", (client.b + 1) % 2**32)
    assert stage.count("unknown_flow_reset") == 1


def test_an_answer_of_another_time_is_dropped_by_name() -> None:
    stage = Stage()
    client = Client(stage).connect()
    handoff_of(client.send(REQUEST))
    stage.packet(client.answer(models.REFUSED, wall=stage.wall + 30))
    assert stage.count("old_answer_epoch") == 1
    assert stage.core.gauges()["flows"] == 1
