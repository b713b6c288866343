"""What the kernel tells of the connections that it carried: bytes, the response's first one, and
who ended first."""

from __future__ import annotations

import time

import pytest

from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, FIN, MASK, RST, build_along
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import Flow
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import DSCP, ETHERNET
from tests.unit import models

pytestmark = pytest.mark.root

SEQ = 5000


@pytest.fixture
def bridge(path: KernelPath, flow: Flow) -> Bridge:
    """One with an access log, as the flow begins."""
    keys = Keyring([derive(models.SHARED_KEY)])
    now = time.monotonic()
    core = Bridge(
        [flow.entry], config.Limits(), config.Timeouts(), keys, Ledger(), now, 1000.0, path
    )
    core.access.wanted = True
    core.table.inbound[DSCP][flow.inbound] = core.table.outbound[flow.outbound] = flow
    flow.began = now
    core._context.begin_story(flow, now)
    return core


def up(path: KernelPath, flow: Flow, flags: int = ACK, payload: bytes = b"") -> int:
    """A client's packet; its bytes of IP."""
    packet = build_along(
        flow.inbound, flags, seq=SEQ, ack=flow.client_ack, tos=DSCP << 2, payload=payload
    )
    path.run("incoming", ETHERNET + packet)
    return len(packet)


def down(path: KernelPath, flow: Flow, flags: int = ACK, payload: bytes = b"", at: int = 0) -> int:
    ack = (SEQ + at + flow.seq_up) & MASK
    packet = build_along(flow.outbound, flags, seq=1, ack=ack, payload=payload)
    assert not path.run("unusual", ETHERNET + packet).verdict
    path.run("outgoing", ETHERNET + packet)
    return len(packet)


@pytest.mark.parametrize("first", ["client", "server"])
def test_an_end_that_the_kernel_reports(
    path: KernelPath, flow: Flow, bridge: Bridge, first: str
) -> None:
    size_up, size_down = up(path, flow), down(path, flow)
    before = time.monotonic()
    size_down += down(path, flow, payload=b"a response")
    answered = time.monotonic()
    size_down += down(path, flow, payload=b"and more of it")
    if first == "client":
        size_up += up(path, flow, ACK | FIN)
        size_down += down(path, flow, ACK | FIN, at=1)
    else:
        size_down += down(path, flow, ACK | FIN)
        size_up += up(path, flow, ACK | FIN)
        size_down += down(path, flow, at=1)
    bridge.gather(time.monotonic() + 1)
    (record,) = bridge.access.take(9)
    assert record["end"] == f"{first}_fin"
    assert (record["bytes_up"], record["bytes_down"]) == (size_up, size_down)
    assert before - flow.began <= record["first_byte"] <= answered - flow.began
    figures = flow.entry.figures
    assert (figures.up_bytes, figures.down_bytes) == (size_up, size_down)
    assert figures.first_byte.count == 1


def test_an_end_that_python_sees(path: KernelPath, flow: Flow, bridge: Bridge) -> None:
    size_up, size_down = up(path, flow, payload=b"more"), down(path, flow, payload=b"answer")
    reset = build_along(flow.outbound, RST, seq=7, ack=0)
    bridge.packet(reset, time.monotonic())
    (record,) = bridge.access.take(9)
    assert record["end"] == "server_reset"
    assert (record["bytes_up"], record["bytes_down"]) == (size_up, size_down + len(reset))
    bridge.end(flow, time.monotonic())
    assert bridge.access.take(9) == [], "once"
    assert flow.entry.figures.down_bytes == size_down + len(reset)
    assert record["first_byte"] is not None


def test_what_python_carried_before_and_after_is_counted_with_it(
    path: KernelPath, flow: Flow, bridge: Bridge
) -> None:
    now = time.monotonic()
    size = down(path, flow, payload=b"by the kernel")
    urgent = build_along(flow.outbound, ACK, seq=1, ack=SEQ, payload=b"x", options=b"\xfe\x04\1\1")
    bridge.packet(urgent, now)
    assert flow.entry.figures.down_bytes == len(urgent)
    size += down(path, flow, payload=b"again")
    bridge.end(flow, now)
    (record,) = bridge.access.take(9)
    assert record["end"] == "killed"
    assert record["bytes_down"] == size + len(urgent) == flow.entry.figures.down_bytes


def test_who_was_first_outlives_the_program(path: KernelPath, flow: Flow) -> None:
    up(path, flow, ACK | FIN)
    down(path, flow, at=1)
    former = path.former(flow.outbound, None)
    assert former is not None
    assert former.client_first
    keys = Keyring([derive(models.SHARED_KEY)])
    core = Bridge([flow.entry], config.Limits(), config.Timeouts(), keys, Ledger(), 0, 0, path)
    core.access.wanted = True
    while core.next_deadline() == 0:
        core.timers(time.monotonic(), 0)
    down(path, flow, ACK | FIN, at=1)
    core.gather(time.monotonic() + 1)
    (record,) = core.access.take(9)
    assert record["end"] == "client_fin"
    assert (record["started"], record["connect"], record["duration"]) == (None, None, None)
    assert flow.entry.figures.first_byte.count == 0, "nobody knows how long it took"
