"""The kernel's programs beside Python's functions: the same packets, the same bytes.

Each packet goes through BPF_PROG_TEST_RUN, with records that the program's own code has written,
and through the translator of the nfqueue path. Where the kernel leaves a packet alone, an
independent rule says that it had to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from balancer.core.flow import Flow as BalancerFlow
from balancer.core.flow import State
from balancer.program.fast_path import KernelPath as SteeringPath
from common.core import handoff, tcp_options
from common.core.errors import MalformedError
from common.core.segment import ACK, IP_HEADER, RST, SYN, Segment
from packetbridge.core import splice
from packetbridge.core.flow import IN_KERNEL, Flow
from packetbridge.program.fast_path import KernelPath as SplicingPath
from tests.kernel.flows import CLIENT, DSCP, ETHERNET, NOT_OURS, VIP, handed, service, spliced
from tests.kernel.packets import Ends, Packets
from tests.soak import Amount

pytestmark = pytest.mark.root

FLOWS = 40
LEFT = "left alone"
QUEUED = "queued for Python"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_splicing(direction: str, amount: Amount, report: Callable[[str], None]) -> None:
    packets, path = Packets(7), SplicingPath(FLOWS + 1, Counter())
    flows = [spliced(number, packets) for number in range(FLOWS)]
    for flow in flows:
        path.follow(flow)
        path.settle()
        assert flow.marked(IN_KERNEL)
    program = {"up": "incoming", "down": "outgoing"}[direction]
    outcome: Counter[str] = Counter()
    count = amount(50_000, 1_000_000)
    for number in range(count):
        flow = flows[number % FLOWS]
        ends, tos = _from_client(flow) if direction == "up" else _from_server(flow)
        data = packets.packet(ends, tos if number % 8 else number >> 3 & 0xFF)
        expected = _splice(flow, data, direction)
        if direction == "down" and path.run("unusual", ETHERNET + data).verdict:
            assert expected is None, data.hex()
            outcome[QUEUED] += 1
        else:
            verdict, out, _ = path.run(program, ETHERNET + data)
            outcome[compared := _compare(data, expected, verdict, out)] += 1
            if compared == LEFT:  # it may have made the kernel wary of what acknowledges the same
                flow.mark(IN_KERNEL, False)
                path.follow(flow)
                path.settle()
        if number % 100_000 == 0:
            amount.progress(number, count)
    report(f"{direction}: {dict(outcome)}")
    untranslated = LEFT if direction == "up" else QUEUED
    assert min(outcome[untranslated], outcome["translated"]) > count / 10


def test_steering(amount: Amount, report: Callable[[str], None]) -> None:
    packets, path = Packets(8), SteeringPath(FLOWS + 1, Counter())
    by = service()
    flows = [handed(number, packets, by) for number in range(FLOWS)]
    for flow in flows:
        flow.state = State.HANDED
        path.steer(flow)
        path.settle()
        assert flow.fast
    outcome: Counter[str] = Counter()
    count = amount(50_000, 1_000_000)
    for number in range(count):
        flow = flows[number % FLOWS]
        data = packets.packet(Ends(CLIENT, VIP, 1024 + number % FLOWS, 80), number >> 3 & 0xFF)
        verdict, out, _ = path.run("steer", ETHERNET + data)
        outcome[_compare(data, _steer(flow, data), verdict, out)] += 1
        if number % 100_000 == 0:
            amount.progress(number, count)
    report(f"{dict(outcome)}")
    assert min(outcome.values()) > count / 10


def _compare(data: bytes, expected: bytes | None, verdict: int, out: bytes) -> str:
    assert verdict == NOT_OURS, data.hex()  # goes on, there being no route for it in a test run
    assert out[:14] == ETHERNET
    changed = out[14:]
    if expected is None:
        assert changed == data, f"\n{data.hex()}\n{changed.hex()}, but it was to be left alone"
        return LEFT
    assert changed == expected, f"\n{data.hex()}\n{changed.hex()}\n{expected.hex()}"
    return "translated"


def _splice(flow: Flow, data: bytes, direction: str) -> bytes | None:
    """What Python makes of it; None where the packet is for Python."""
    segment = _plain(data)
    if segment is None or segment.flags & (SYN | RST | ACK) != ACK or segment.ttl < 2:
        return None
    if direction == "up":
        return None if segment.tos >> 2 != DSCP else splice.up_any(flow, segment)
    return splice.down_any(flow, segment, 0.0)


def _steer(flow: BalancerFlow, data: bytes) -> bytes | None:
    segment = _plain(data)
    if segment is None or segment.flags & SYN or not segment.flags & (ACK | RST):
        return None
    repeated = segment.payload and (segment.seq - flow.first) % 2**32 < flow.handoff_bytes
    if repeated or segment.ttl < 2:
        return None
    assert flow.target is not None
    return flow.target.steering.segment(segment)


def _plain(data: bytes) -> Segment | None:
    """A segment that can be read, without IP options, and without a TCP option of our kind."""
    try:
        segment = Segment(data)
        found = tcp_options.find(segment.options, tcp_options.EXPERIMENT)
        list(tcp_options.walk(segment.options))
    except MalformedError:
        return None
    return segment if found is None and segment.ip_bytes == IP_HEADER.size else None


def _from_client(flow: Flow) -> tuple[Ends, int]:
    return _ends(flow.inbound), DSCP << 2 | flow.inbound[9] & 3


def _from_server(flow: Flow) -> tuple[Ends, int]:
    return _ends(flow.outbound), 0


def _ends(key: bytes) -> Ends:
    ports = int.from_bytes(key[8:10], "big"), int.from_bytes(key[10:], "big")
    return Ends(key[:4], key[4:8], *ports)


assert handoff.LENGTH == 16  # the generator's option is of ours
