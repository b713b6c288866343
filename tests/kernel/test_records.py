"""What the program and the kernel tell each other of a connection, by its records."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from balancer.core.flow import State
from balancer.program.fast_path import KernelPath as SteeringPath
from common.adapters.bpf.object import Map
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, FIN, Segment, build_along
from packetbridge.core import config, splice
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import FOLLOWED, IN_KERNEL, SERVER, Flow
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import DSCP, ETHERNET, handed, service
from tests.kernel.packets import Packets
from tests.unit import models

pytestmark = pytest.mark.root


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


def test_a_servers_fin_is_in_the_record_for_a_restart(path: KernelPath, flow: Flow) -> None:
    """Which the kernel sees to, should the program not be there to hear of it."""
    fin = build_along(flow.outbound, ACK | FIN, seq=1, ack=flow.server_ack)
    assert not path.run("unusual", ETHERNET + fin).verdict
    former = path.former(flow.outbound, None)
    assert former is not None
    assert former.fins == SERVER


def test_what_has_ended_on_both_sides_has_no_records(path: KernelPath, flow: Flow) -> None:
    core = Bridge(
        [flow.entry],
        config.Limits(),
        config.Timeouts(),
        Keyring([derive(models.SHARED_KEY)]),
        Ledger(),
        0,
        0,
        path,
    )
    core.packet(build_along(flow.outbound, ACK | FIN, seq=1, ack=flow.server_ack), 1.0)
    assert flow.marked(IN_KERNEL), "the client may go on"
    fin = build_along(flow.inbound, ACK | FIN, seq=1, ack=flow.client_ack, tos=DSCP << 2)
    core.packet(fin, 2.0)
    assert path.ways(flow) == [None, None]


def test_records_that_cannot_be_brought_up_to_date_go(
    path: KernelPath, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Map, "put", lambda *_: False)
    flow.mark(FOLLOWED, False)
    path.follow(flow)
    assert path.ways(flow) == [None, None]
    assert not flow.marked(IN_KERNEL)


def test_a_steered_record_that_cannot_be_brought_up_to_date_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, flow = SteeringPath(2, Counter()), handed(0, Packets(1), service())
    flow.state = State.HANDED
    path.steer(flow)
    path.settle()
    assert list(path.records.keys()) == [flow.key]
    monkeypatch.setattr(Map, "put", lambda *_: False)
    path.steer(flow)
    assert not flow.fast
    assert not list(path.records.keys())
