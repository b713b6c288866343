"""Ends of connections that the kernel has: it sees the FINs, and reports when both count."""

from __future__ import annotations

import pytest

from common.core import handoff
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, FIN, MASK, Segment, build_along
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import IN_KERNEL, Flow
from packetbridge.core.states import State
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import DSCP, ETHERNET
from tests.unit import models

pytestmark = pytest.mark.root

SEQ = 5000  # of the client's FIN, as it comes


def _bridge(path: KernelPath, flow: Flow) -> Bridge:
    limits, keys = config.Limits(), Keyring([derive(models.SHARED_KEY)])
    core = Bridge([flow.entry], limits, config.Timeouts(), keys, Ledger(), 0, 0, path)
    core.table.inbound[DSCP][flow.inbound] = core.table.outbound[flow.outbound] = flow
    return core


def _client(path: KernelPath, flow: Flow, flags: int, seq: int = SEQ) -> bytes:
    """What becomes of a client's segment."""
    packet = build_along(flow.inbound, flags, seq=seq, ack=flow.client_ack, tos=DSCP << 2)
    return path.run("incoming", ETHERNET + packet).packet[14:]


def _server(path: KernelPath, flow: Flow, flags: int, acked: int = SEQ) -> bool:
    """Whether a server's segment, which acknowledges the client's bytes before ``acked``, is for
    the kernel."""
    ack = (acked + flow.seq_up) & MASK
    packet = build_along(flow.outbound, flags, seq=1, ack=ack)
    return not path.run("unusual", ETHERNET + packet).verdict


def test_a_fin_of_either_side_is_translated(path: KernelPath, flow: Flow) -> None:
    up = Segment(_client(path, flow, ACK | FIN))
    assert (up.flags, up.seq) == (ACK | FIN, (SEQ + flow.seq_up) & MASK)
    up.check_checksum()
    assert _server(path, flow, ACK | FIN)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_connection_is_over_when_both_fins_count(
    path: KernelPath, flow: Flow, first: str
) -> None:
    core = _bridge(path, flow)
    if first == "client":
        _client(path, flow, ACK | FIN)
        assert _server(path, flow, ACK)
        assert path.endings() == []
        assert _server(path, flow, ACK | FIN, SEQ + 1)
    else:
        assert _server(path, flow, ACK | FIN)
        _client(path, flow, ACK | FIN)
        assert path.endings() == []
        assert _server(path, flow, ACK, SEQ + 1)
    assert _server(path, flow, ACK, SEQ + 1), "again"
    core.gather(1.0)
    core.settle()
    assert flow.state is State.LINGER
    ((_, packet),) = core.out
    answer = Segment(packet)
    assert handoff.decode(handoff.find(answer.options) or b"").kind is handoff.Kind.ENDED
    assert (answer.seq, answer.ack) == ((flow.c + 1) & MASK, (flow.b + 1) & MASK)
    assert not flow.marked(IN_KERNEL), "the next one may come"


def test_a_fin_that_was_not_the_clients_ends_nothing(path: KernelPath, flow: Flow) -> None:
    """The server acknowledges bytes beyond it."""
    _client(path, flow, ACK | FIN, SEQ + 100)
    assert _server(path, flow, ACK | FIN, SEQ + 200)
    assert _server(path, flow, ACK, SEQ + 101)
    assert path.endings() == []
    _client(path, flow, ACK | FIN, SEQ + 300)
    assert _server(path, flow, ACK, SEQ + 301)
    assert len(path.endings()) == 1


def test_one_sides_end_is_recalled(path: KernelPath, flow: Flow) -> None:
    _client(path, flow, ACK | FIN)
    path.recall(flow)
    assert flow.client_fin == SEQ + 1
    assert _server(path, flow, ACK, SEQ + 1)
    path.recall(flow)
    assert (flow.fins, flow.client_fin) == (1, None)


def test_an_earlier_incarnations_end_is_not_the_next_ones(path: KernelPath, flow: Flow) -> None:
    core = _bridge(path, flow)
    _client(path, flow, ACK | FIN)
    assert _server(path, flow, ACK | FIN, SEQ + 1)
    flow.isns = bytes(8)  # as if it were another
    core.gather(1.0)
    assert flow.state is State.SPLICED


def test_an_end_without_room_to_report_it_is_for_python(path: KernelPath, flow: Flow) -> None:
    core = _bridge(path, flow)
    reported = 0
    while True:
        _client(path, flow, ACK | FIN)
        if not _server(path, flow, ACK | FIN, SEQ + 1):
            break
        reported += 1
        assert reported < 100_000
        path.forget(flow)
        flow.fins, flow.client_fin = 0, None
        assert path.begin(flow), "from the beginning"
    assert reported == (1 << 17) // 40, "records of 32 bytes with headers of 8"
    flow.fins, flow.client_fin = 0, None
    ack = (SEQ + 1 + flow.seq_up) & MASK
    core.packet(build_along(flow.outbound, ACK | FIN, seq=1, ack=ack), 1.0)
    assert flow.state is State.LINGER


def test_what_ended_while_nobody_looked_is_told_at_the_next_start(
    path: KernelPath, flow: Flow
) -> None:
    _client(path, flow, ACK | FIN)
    assert _server(path, flow, ACK | FIN, SEQ + 1)
    assert path.endings(), "lost with the program that was killed"
    limits, keys = config.Limits(), Keyring([derive(models.SHARED_KEY)])
    core = Bridge([flow.entry], limits, config.Timeouts(), keys, Ledger(), 0, 0, path)
    while core.next_deadline() == 0:
        core.timers(0, 0)
    assert core.counts()["flows_adopted"] == 1
    ((_, packet),) = core.out
    answer = Segment(packet)
    assert handoff.decode(handoff.find(answer.options) or b"").kind is handoff.Kind.ENDED
    assert (answer.seq, answer.ack) == ((flow.c + 1) & MASK, (flow.b + 1) & MASK)


def test_an_acknowledgment_number_that_does_not_count_acknowledges_no_fin(
    path: KernelPath, flow: Flow
) -> None:
    """Without the ACK flag it is anything (RFC 9293 section 3.1)."""
    _client(path, flow, ACK | FIN)
    assert not _server(path, flow, 0, SEQ + 1000)
    path.recall(flow)
    assert flow.client_fin == SEQ + 1
    assert not _server(path, flow, 0, SEQ + 1)
    path.recall(flow)
    assert (flow.fins, flow.client_fin) == (0, SEQ + 1)
