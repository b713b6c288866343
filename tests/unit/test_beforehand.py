"""The kernel is given a connection just before what comes of its packet leaves: given sooner, its
next packet could overtake that one, and one that never leaves, the program having been killed,
would be taken for on its way."""

from __future__ import annotations

from collections.abc import Callable

from balancer.core import flow as balancers
from balancer.core.fast_path import NoFastPath
from packetbridge.core import fast_path as bridges
from packetbridge.core.flow import Flow
from tests.unit import balancer_stage, bridge_stage


class Steering(NoFastPath):
    def __init__(self) -> None:
        self.steered: list[tuple[balancers.Flow, bool]] = []

    def steer(self, flow: balancers.Flow, at_once: bool = False) -> None:
        self.steered.append((flow, at_once))


class Splicing(bridges.NoFastPath):
    def __init__(self) -> None:
        self.begun: list[Flow] = []

    def begin(self, flow: Flow) -> bool:
        self.begun.append(flow)
        return True


def done(steps: list[Callable[[], None]]) -> None:
    """What the packet loop does before it sends."""
    for step in steps:
        step()
    steps.clear()


def test_a_request_of_one_segment() -> None:
    stage = balancer_stage.Stage(fast=(fast := Steering()))
    balancer_stage.Client(stage).connect().send(balancer_stage.REQUEST, flags="PA")
    assert fast.steered == []
    done(stage.core.beforehand)
    ((flow, at_once),) = fast.steered
    assert flow.state is balancers.State.HANDED
    assert at_once


def test_a_request_whose_flow_has_ended_meanwhile() -> None:
    stage = balancer_stage.Stage(fast=(fast := Steering()))
    balancer_stage.Client(stage).connect().send(balancer_stage.REQUEST, flags="PA")
    (flow,) = stage.core.table.handed.values()
    stage.core.kill(flow, stage.now)
    done(stage.core.beforehand)
    assert fast.steered == []


def test_a_server_that_is_given_its_request() -> None:
    stage = bridge_stage.Stage(fast=(fast := Splicing()))
    connection = bridge_stage.Connection(stage)
    connection.handoff(flags="PA")
    stage.sent()
    connection.syn_ack()
    assert fast.begun == []
    assert stage.flow().opening is not None
    done(stage.core.beforehand)
    assert fast.begun == [stage.flow()]
    assert stage.flow().opening is None
    assert stage.core.table.held_bytes == 0


def test_a_server_that_is_not_any_more() -> None:
    stage = bridge_stage.Stage(fast=(fast := Splicing()))
    connection = bridge_stage.Connection(stage)
    connection.handoff(flags="PA")
    stage.sent()
    connection.syn_ack()
    stage.core.end(stage.flow(), stage.now)
    done(stage.core.beforehand)
    assert fast.begun == []
