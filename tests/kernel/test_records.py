"""What the program and the kernel tell each other of a connection, by its records."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from common.core.segment import ACK, FIN, Segment, build_along
from packetbridge.core import splice
from packetbridge.core.flow import Flow
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import DSCP, ETHERNET, spliced
from tests.kernel.packets import Packets

pytestmark = pytest.mark.root


@pytest.fixture
def path() -> KernelPath:
    return KernelPath(2, Counter())


@pytest.fixture
def flow(path: KernelPath) -> Flow:
    found = spliced(0, Packets(1))
    path.follow(found)
    path.settle()
    return found


def _acknowledge(path: KernelPath, flow: Flow, *, by_client: int, by_server: int) -> None:
    up = build_along(flow.inbound, ACK, seq=1, ack=by_client, tos=DSCP << 2)
    path.run("incoming", ETHERNET + up)
    path.run("outgoing", ETHERNET + build_along(flow.outbound, ACK, seq=1, ack=by_server))


def test_what_the_kernel_saw_is_recalled(path: KernelPath, flow: Flow) -> None:
    _acknowledge(path, flow, by_client=5000, by_server=7000)
    before = time.monotonic()
    path.recall(flow)
    assert (flow.client_ack, flow.server_ack) == (5000, 7000)
    assert before - 1 < flow.seen <= time.monotonic()


def test_what_python_saw_later_is_not_forgotten_for_it(path: KernelPath, flow: Flow) -> None:
    """The numbers by which a RST is judged, and that RSTs of ours carry."""
    _acknowledge(path, flow, by_client=5000, by_server=7000)
    path.recall(flow)
    flow.seen = now = time.monotonic()
    last = build_along(flow.outbound, ACK | FIN, seq=1, ack=7300)
    splice.down_any(flow, Segment(last), now)
    splice.up_any(flow, Segment(build_along(flow.inbound, ACK | FIN, seq=1, ack=5002)))
    path.recall(flow)
    assert (flow.client_ack, flow.server_ack) == (5002, 7300)


def test_what_the_kernel_saw_last_counts_however_far_it_is(path: KernelPath, flow: Flow) -> None:
    """Anyone may send a number in the client's name; and a fast upload is soon 2**31 ahead."""
    splice.up_any(flow, Segment(build_along(flow.inbound, ACK, seq=1, ack=1 << 30)))
    _acknowledge(path, flow, by_client=5000, by_server=(flow.server_ack + (3 << 30)) % 2**32)
    expected = (flow.server_ack + (3 << 30)) % 2**32
    path.recall(flow)
    assert (flow.client_ack, flow.server_ack) == (5000, expected)
