"""Idle flows of the balancer; see tests.resources.idle_flows."""

from __future__ import annotations

from balancer.core import config as balancer_config
from balancer.core.catalogue import built, even
from balancer.core.engine import Balancer
from balancer.core.fast_path import FastPath as SteeringPath
from common.core.keys import Keyring, Keys
from common.core.ledger import Ledger
from common.core.segment import ACK, PSH, SYN, Segment, build
from tests.resources.idle_flows import (
    ARRIVALS,
    FILLED_IN,
    NOW,
    OFFSET,
    STAMPS,
    SYN_OPTIONS,
    VIP,
    Watch,
    client,
    last,
)


def fill(
    flows: int, room: int, keys: Keys, watch: Watch, fast: SteeringPath | None = None
) -> Balancer:
    """``flows`` connections, each with a handshake and a request that was handed over."""
    config = balancer_config.default()
    catalogue = built(config, even(config), NOW)
    limits = balancer_config.Limits(flows=room, closed=max(room // 4, 1))
    ring = Keyring([keys])
    core = Balancer(catalogue, limits, config.timeouts, ring, Ledger(), NOW, OFFSET, fast)
    arrivals = min(ARRIVALS, room // FILLED_IN)
    for number in range(flows):
        now = NOW + number / arrivals
        watch(number)
        if core.next_deadline() <= now:
            core.timers(now, OFFSET)
        address, port = client(number)
        syn = build(address, VIP, port, 80, seq=number, flags=SYN, options=SYN_OPTIONS)
        core.packet(syn, now)
        answer = Segment(core.out.pop()[1])
        request = build(
            address,
            VIP,
            port,
            80,
            seq=number + 1,
            ack=(answer.seq + 1) & 0xFFFFFFFF,
            flags=ACK | PSH,
            window=500,
            options=STAMPS,
            payload=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        assert core.packet(request, now) is not None, "who comes now is served"
        core.settle()
        core.out.clear()  # what tells the bridge of an end
    assert [key[:4] for key in core.table.handed] == last(flows, room)
    return core
