"""Idle flows of the bridge; see tests.resources.idle_flows."""

from __future__ import annotations

from common.core import handoff
from common.core.keys import Keyring, Keys
from common.core.ledger import Ledger
from common.core.segment import ACK, PSH, SYN, build
from packetbridge.core import config as bridge_config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import FastPath as SplicingPath
from tests.resources.idle_flows import (
    ARRIVALS,
    BRIDGE,
    FILLED_IN,
    NOW,
    OFFSET,
    SERVER,
    STAMPS,
    SYN_OPTIONS,
    VIP,
    Watch,
    client,
    last,
)


def fill(
    flows: int, room: int, keys: Keys, watch: Watch, fast: SplicingPath | None = None
) -> Bridge:
    """``flows`` connections, each handed over, opened with the server and answered by it."""
    config = bridge_config.default()
    backend = config.backends[0]
    entry = Entry(backend, 1, config.vip(1), config.mark, local=True, bbr=False)
    limits = bridge_config.Limits(flows=room, closed=max(room // 4, 1))
    ring = Keyring([keys])
    core = Bridge([entry], limits, config.timeouts, ring, Ledger(), NOW, OFFSET, fast)
    arrivals = min(ARRIVALS, room // FILLED_IN)
    for number in range(flows):
        now = NOW + number / arrivals
        watch(number)
        if core.next_deadline() <= now:
            core.timers(now, OFFSET)
        address, port = client(number)
        c, b = number * 40_000 & 0xFFFFFFFF, number * 70_001 & 0xFFFFFFFF
        key = address + VIP + port.to_bytes(2, "big") + (80).to_bytes(2, "big")
        message = handoff.Handoff(handoff.Kind.HANDOFF, 1460, 0, 7, 7, sack=True)
        seq = (c + 1) & 0xFFFFFFFF
        epoch = handoff.epoch_at(now + OFFSET)
        option = handoff.encode(keys, message, handoff.Binding(key, c, b, seq), epoch)
        request = build(
            address,
            BRIDGE,
            port,
            80,
            seq=seq,
            ack=(b + 1) & 0xFFFFFFFF,
            flags=ACK | PSH,
            options=option + STAMPS,
            payload=b"GET / HTTP/1.1\r\n\r\n",
            tos=1 << 2,
        )
        core.packet(request, now)
        core.out.clear()
        r = number * 90_001 & 0xFFFFFFFF
        syn_ack = build(
            SERVER, address, 80, port, seq=r, ack=seq, flags=SYN | ACK, options=SYN_OPTIONS
        )
        core.packet(syn_ack, now, entry.mark)
        core.out.clear()
        end = (seq + 18) & 0xFFFFFFFF
        reply = build(
            SERVER, address, 80, port, seq=(r + 1) & 0xFFFFFFFF, ack=end, flags=ACK, options=STAMPS
        )
        assert core.packet(reply, now, entry.mark) is not None, "who comes now is served"
        core.settle()
    assert [key[4:8] for key in core.table.outbound] == last(flows, room)
    assert sum(flow.fast for flow in core.table.outbound.values()) == len(core.table)
    return core
