"""Both programs' flow tables: bounds, moves, expiry in bounded work, memory of the ended."""

from __future__ import annotations

import pytest

from balancer.core import config as balancer_config
from balancer.core.catalogue import built, even
from balancer.core.fast_path import NoFastPath
from balancer.core.flow import Flow, State
from balancer.core.flow_table import FlowTable
from balancer.core.request.head import Head
from common.core.ledger import Ledger
from common.core.timing import ENDS_AT_ONCE
from packetbridge.core import config as bridge_config
from packetbridge.core import flow as bridge_flow
from packetbridge.core import flow_table as bridge_table
from packetbridge.core import states
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import NoFastPath as BridgeNoFastPath

T0 = 5000.0


# --- the balancer's ---


def table_of(**limits: int) -> FlowTable:
    limited = balancer_config.Limits(**limits)
    return FlowTable(limited, CONFIG.timeouts, Ledger(), NoFastPath(), T0)


BACKEND = balancer_config.Backend("b", "203.0.113.20")
CONFIG = balancer_config.Config(
    (balancer_config.Service("s", "192.0.2.10", 80, 5, None, (BACKEND,)),),
    timeouts=balancer_config.Timeouts(request=30.0, idle=100.0, closing=20.0),
)
(SERVICE,) = built(CONFIG, even(CONFIG), 0.0).services.values()


def flow_of(number: int, now: float = T0) -> Flow:
    return Flow(number.to_bytes(12, "big"), SERVICE, 1, 2, now)


def test_a_flow_waits_is_handed_and_is_remembered() -> None:
    table, flow = table_of(), flow_of(1)
    assert table.find(flow.key) is None
    table.admit(flow)
    assert table.find(flow.key) is flow
    assert table.hand(flow)
    assert table.find(flow.key) is flow
    assert (len(table.waiting), len(table.handed)) == (0, 1)
    assert not table.was_closed(flow.incarnation, T0)
    table.remove(flow, T0, "")
    assert table.find(flow.key) is None
    assert flow.state is State.GONE
    assert table.was_closed(flow.incarnation, T0 + 127)
    assert not table.was_closed(flow.incarnation, T0 + 256)


def test_a_service_that_waits_for_less_is_looked_at_in_time() -> None:
    hasty = balancer_config.Service(
        "s", "192.0.2.10", 80, 5, None, (BACKEND,), request_timeout=1.0, idle_timeout=5.0
    )
    configured = balancer_config.Config((hasty,))
    (service,) = built(configured, even(configured), 0.0).services.values()
    table = FlowTable(configured.limits, configured.timeouts, Ledger(), NoFastPath(), T0)
    waiting, handed = (Flow(bytes(11) + bytes((n,)), service, 1, 2, T0) for n in (1, 2))
    table.admit(waiting)
    table.admit(handed)
    table.hand(handed)
    assert table.expired(T0 + 2.1) == ([waiting], False)
    assert table.expired(T0 + 6.1) == ([handed], False)


def test_the_oldest_waiting_is_evicted_with_its_bytes_and_not_remembered() -> None:
    table = table_of(waiting=1)
    first, second = flow_of(1), flow_of(2)
    table.admit(first)
    first.head = Head()
    first.head.kept_bytes = table.buffered_bytes = 77
    table.admit(second)
    assert table.buffered_bytes == 0
    assert first.state is State.GONE
    assert not table.was_closed(first.incarnation, T0)
    assert list(table.waiting.values()) == [second]


def test_there_is_no_room_beyond_the_limit() -> None:
    table = table_of(flows=1)
    first, second = flow_of(1), flow_of(2)
    for flow in (first, second):
        table.admit(flow)
    assert table.hand(first)
    assert not table.hand(second)
    assert second.state is State.WAITING
    table.remove(first, T0, "")
    assert table.hand(second)


def expired_by(table: FlowTable, seconds: float) -> list[Flow]:
    ended: list[Flow] = []
    for second in range(int(seconds) + 1):
        more = True
        while more:
            batch, more = table.expired(T0 + second)
            ended += batch
    return ended


@pytest.mark.parametrize(
    ("state", "closing", "timeout"),
    [("waiting", False, 30), ("handed", False, 100), ("handed", True, 20), ("closed", False, 20)],
)
def test_each_state_has_its_time_out(state: str, closing: bool, timeout: int) -> None:
    table, flow = table_of(), flow_of(1)
    table.admit(flow)
    if state == "handed":
        table.hand(flow)
    elif state == "closed":
        flow.state = State.CLOSED
    flow.closing = closing
    assert expired_by(table, timeout - 1) == []
    assert expired_by(table, timeout + 16) == [flow]


def test_many_expiries_are_bounded_work_each() -> None:
    table = table_of()
    flows = [flow_of(number) for number in range(ENDS_AT_ONCE + 10)]
    for flow in flows:
        table.admit(flow)
    ended, more = table.expired(T0 + 500)
    assert (len(ended), more) == (ENDS_AT_ONCE, True)
    ended, more = table.expired(T0 + 500)
    assert (len(ended), more) == (10, False)


def test_a_removed_flow_does_not_expire() -> None:
    table, flow = table_of(), flow_of(1)
    table.admit(flow)
    table.remove(flow, T0, "")
    table.remove(flow, T0, "")
    assert expired_by(table, 300) == []


# --- the bridge's ---


def bridge_entry(dscp: int = 5) -> Entry:
    backend = bridge_config.Backend("203.0.113.20", 80, "203.0.113.30", 8080)
    return Entry(backend, dscp, "192.0.2.10", 0x4C330000, True, False)


def bridge_table_of() -> bridge_table.FlowTable:
    times = bridge_config.Timeouts(idle=100.0, closing=20.0, linger=0.0)
    return bridge_table.FlowTable(
        bridge_config.Limits(flows=2), times, Ledger(), BridgeNoFastPath(), T0
    )


CLIENT = bytes([198, 51, 100, 7])


def spliced(table: bridge_table.FlowTable, port: int) -> bridge_flow.Flow:
    inbound = CLIENT + bytes([203, 0, 113, 20]) + port.to_bytes(2, "big") + (80).to_bytes(2, "big")
    flow = bridge_flow.Flow(bridge_entry(), inbound, 1, 2, T0)
    flow.address(CLIENT + port.to_bytes(2, "big"))
    flow.apply(states.Event.SYN_OUT)
    table.add(flow)
    return flow


def test_one_record_serves_both_directions() -> None:
    table = bridge_table_of()
    flow = spliced(table, 4000)
    server = bytes([203, 0, 113, 30])
    outbound = server + CLIENT + (8080).to_bytes(2, "big") + (4000).to_bytes(2, "big")
    assert table.inbound[5][flow.inbound] is table.outbound[outbound] is flow
    assert not table.full()
    spliced(table, 4001)
    assert table.full()
    assert len(table) == 2


def test_an_ended_flow_is_remembered_in_both_directions() -> None:
    table = bridge_table_of()
    flow = spliced(table, 4000)
    assert not table.was_closed(flow, T0)
    flow.apply(states.Event.CONNECTED)
    table.remove(flow, states.Event.RESET, T0)
    assert len(table) == 0
    assert not table.inbound[5]
    again = [bridge_flow.Flow(flow.entry, flow.inbound, 1, 2, T0, attempt) for attempt in (0, 1)]
    assert all(table.was_closed(each, T0 + 23) for each in again)
    assert not table.was_closed(bridge_flow.Flow(bridge_entry(6), flow.inbound, 1, 2, T0), T0)
    assert not table.was_closed(bridge_flow.Flow(flow.entry, flow.inbound, 1, 3, T0), T0)
    assert table.was_spliced(flow.outbound, T0 + 23)
    assert not any(table.was_closed(each, T0 + 48) for each in again)


@pytest.mark.parametrize(
    ("events", "timeout"),
    [([], 100), (["connected"], 100), (["connected", "fin_one"], 20), (["connected", "reset"], 0)],
)
def test_each_bridge_state_has_its_time_out(events: list[str], timeout: int) -> None:
    table = bridge_table_of()
    flow = spliced(table, 4000)
    for event in events:
        flow.apply(states.Event(event))
    ended: list[bridge_flow.Flow] = []
    for second in range(timeout):
        ended += table.expired(T0 + second)[0]
    assert ended == []
    for second in range(timeout, timeout + 17):
        ended += table.expired(T0 + second)[0]
    assert ended == [flow]
