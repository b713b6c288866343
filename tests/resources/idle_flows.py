"""Fills one program's core with idle flows and prints what the process then occupies.

    python -m tests.resources.idle_flows balancer|packetbridge [FLOWS [ROOM]]

Everything that the program itself imports is imported, and each flow is made by the packets that
make it in life, so that the figure is that of the running program less the packets in its queue.
With less ROOM than FLOWS the program is to keep the last ones, which is made sure of.
Prints: the flows kept, the resident bytes before, when 60 % had come, after, and per flow.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from balancer.core import config as balancer_config
from balancer.core.catalogue import built, even
from balancer.core.engine import Balancer
from balancer.core.fast_path import FastPath as SteeringPath
from common.core import handoff
from common.core.keys import Keyring, Keys, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, PSH, SYN, Segment, build
from packetbridge.core import config as bridge_config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import FastPath as SplicingPath

NOW, OFFSET = 1000.0, 1_700_000_000.0
ARRIVALS = 2000  # flows a second at most; fewer where they would fill the room in so many seconds:
FILLED_IN = 20  # longer than an ended flow is kept until it is looked at (timing.ASK_AGAIN)
MOST_OF_THEM = 0.6

Watch = Callable[[int], None]  # called with the number of flows that have come so far
VIP, BRIDGE, SERVER = (
    bytes((192, 168, 33, 10)),
    bytes((192, 168, 33, 20)),
    bytes((192, 168, 33, 30)),
)
STAMPS = b"\x01\x01\x08\x0a" + bytes((0, 1, 2, 3, 4, 5, 6, 7))
SYN_OPTIONS = (
    b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes((0, 1, 2, 3)) + bytes(4) + b"\x01\x03\x03\x07"
)


def client(number: int) -> tuple[bytes, int]:
    """Address and port of one of many clients."""
    return (0x0A000000 + number // 16).to_bytes(4, "big"), 1024 + number % 16


def fill_balancer(
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
    assert [key[:4] for key in core.table.handed] == _last(flows, room)
    return core


def fill_bridge(
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
    assert [key[4:8] for key in core.table.outbound] == _last(flows, room)
    assert sum(flow.fast for flow in core.table.outbound.values()) == len(core.table)
    return core


def _last(flows: int, room: int) -> list[bytes]:
    """The addresses of the last clients, as many as there is room for, in order."""
    return [client(number)[0] for number in range(max(flows - room, 0), flows)]


def resident() -> int:
    """Bytes of memory that this process occupies."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")


def main() -> None:
    program = sys.argv[1]
    flows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    room = int(sys.argv[3]) if len(sys.argv) > 3 else flows
    for module in ("cli", "serve"):
        importlib.import_module(f"{program}.program.{module}")
    gc.disable()
    later: list[int] = []

    def watch(number: int) -> None:
        if number == int(MOST_OF_THEM * flows):
            later.append(resident())

    before = resident()
    fill = fill_balancer if program == "balancer" else fill_bridge
    core = fill(flows, room, derive(bytes(32)), watch)
    after, kept = resident(), core.gauges()["flows"]
    each = (after - before) // kept
    print(f"{program} flows={kept} before={before} most={later[0]} after={after} per_flow={each}")


if __name__ == "__main__":
    main()
