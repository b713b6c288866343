"""Packets that the kernel's programs must not take for a connection's, and what they count."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from balancer.core.flow import Flow as BalancerFlow
from balancer.core.flow import State
from balancer.program.fast_path import KernelPath as SteeringPath
from common.core.segment import ACK, build_along
from packetbridge.core.flow import Flow
from packetbridge.program.fast_path import KernelPath as SplicingPath
from tests.kernel.flows import DSCP, ETHERNET, NOT_OURS, handed, recorded, service
from tests.kernel.packets import Packets

pytestmark = pytest.mark.root

OTHER_HOST = b"\x02" + ETHERNET[1:]  # as the interface of a test run has an address of zeros
MSS = 1000


@pytest.fixture
def steering() -> SteeringPath:
    return SteeringPath(2, Counter())


@pytest.fixture
def steered(steering: SteeringPath) -> BalancerFlow:
    flow = handed(0, Packets(1), service())
    flow.state, flow.handoff_bytes = State.HANDED, 0
    steering.steer(flow)
    steering.settle()
    return flow


@pytest.fixture
def splicing() -> SplicingPath:
    return SplicingPath(2, Counter())


@pytest.fixture
def flow(splicing: SplicingPath) -> Flow:
    return recorded(splicing)


def test_a_frame_for_another_host_is_not_steered(
    steering: SteeringPath, steered: BalancerFlow
) -> None:
    packet = build_along(steered.key, ACK, seq=steered.first, ack=1)
    assert steering.run("steer", OTHER_HOST + packet)[:2] == (NOT_OURS, OTHER_HOST + packet)
    assert steering.run("steer", ETHERNET + packet).packet != ETHERNET + packet


def test_a_frame_for_another_host_is_not_spliced(splicing: SplicingPath, flow: Flow) -> None:
    packet = build_along(flow.inbound, ACK, seq=1, ack=1, tos=DSCP << 2)
    assert splicing.run("incoming", OTHER_HOST + packet)[:2] == (NOT_OURS, OTHER_HOST + packet)
    assert splicing.run("incoming", ETHERNET + packet).packet != ETHERNET + packet


def test_what_says_that_it_is_of_the_local_server_and_comes_in_changes_nothing(
    splicing: SplicingPath, flow: Flow
) -> None:
    before = flow.server_ack
    packet = build_along(flow.outbound, ACK, seq=1, ack=before + 1000)
    assert splicing.run("incoming", ETHERNET + packet)[:2] == (NOT_OURS, ETHERNET + packet)
    splicing.recall(flow)
    assert flow.server_ack == before
    assert splicing.run("outgoing", ETHERNET + packet).packet != ETHERNET + packet


@pytest.mark.parametrize(
    ("payload", "size", "packets"), [(0, 0, 1), (500, MSS, 1), (1000, MSS, 1), (2500, MSS, 3)]
)
def test_segments_of_a_super_packet_are_counted_each(
    payload: int, size: int, packets: int, steering: SteeringPath, steered: BalancerFlow
) -> None:
    packet = build_along(steered.key, ACK, seq=steered.first, ack=1, payload=bytes(payload))
    steering.run("steer", ETHERNET + packet, struct.pack("176xI", size))
    found = steering.gauges()
    assert (found["fast_packets"], found["fast_bytes"]) == (packets, payload + 40 * packets)


def test_each_direction_is_counted_in_its_record_and_in_all(
    splicing: SplicingPath, flow: Flow
) -> None:
    up = build_along(flow.inbound, ACK, seq=1, ack=1, payload=bytes(10), tos=DSCP << 2)
    down = build_along(flow.outbound, ACK, seq=1, ack=1, payload=bytes(3000))
    for _ in range(2):
        splicing.run("incoming", ETHERNET + up)
    splicing.run("outgoing", ETHERNET + down, struct.pack("176xI", MSS))
    counted = {name: count for name, count in splicing.gauges().items() if count}
    assert counted == {
        "fast_packets_up": 2,
        "fast_bytes_up": 100,
        "fast_packets_down": 3,
        "fast_bytes_down": 3120,
    }
    found = [(way.packets, way.size) for way in splicing.ways(flow) if way is not None]
    assert found == [(2, 100), (3, 3120)]
