"""Fills one program's core with idle flows and prints what the process then occupies.

    python -m tests.resources.idle_flows balancer|packetbridge [FLOWS]

Everything that the program itself imports is imported, and each flow is made by the packets that
make it in life, so that the figure is that of the running program less the packets in its queue.
Prints: the resident bytes before, after, and per flow.
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

from balancer.core import config as balancer_config
from balancer.core.engine import Balancer
from balancer.core.service import Service
from common.core import handoff
from common.core.keys import Keys, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, PSH, SYN, Segment, build
from packetbridge.core import config as bridge_config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry

NOW, OFFSET = 1000.0, 1_700_000_000.0
ARRIVALS = 2000  # flows a second
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


def fill_balancer(flows: int, keys: Keys) -> Balancer:
    """``flows`` connections, each with a handshake and a request that was handed over."""
    config = balancer_config.default()
    services = [
        Service(service, [1500] * len(service.backends), 1500) for service in config.services
    ]
    core = Balancer(services, config.limits, config.timeouts, keys, Ledger(), NOW, OFFSET)
    for number in range(flows):
        now = NOW + number / ARRIVALS
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
        assert core.packet(request, now) is not None
    assert len(core.table.handed) == flows
    return core


def fill_bridge(flows: int, keys: Keys) -> Bridge:
    """``flows`` connections, each handed over, opened with the server and answered by it."""
    config = bridge_config.default()
    backend = config.backends[0]
    entry = Entry(backend, 1, config.vip(1), config.mark, local=True, bbr=False)
    core = Bridge([entry], config.limits, config.timeouts, keys, Ledger(), NOW, OFFSET)
    for number in range(flows):
        now = NOW + number / ARRIVALS
        if number % 1000 == 0:
            core.timers(now, OFFSET)  # the SYNs' own run out
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
        assert core.packet(reply, now, entry.mark) is not None
    assert sum(flow.fast for flow in core.table.outbound.values()) == flows
    return core


def resident() -> int:
    """Bytes of memory that this process occupies."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")


def main() -> None:
    program = sys.argv[1]
    flows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    for module in ("cli", "serve"):
        importlib.import_module(f"{program}.program.{module}")
    gc.disable()
    before = resident()
    core = (fill_balancer if program == "balancer" else fill_bridge)(flows, derive(bytes(32)))
    after = resident()
    each = (after - before) // flows
    print(f"{program} flows={flows} before={before} after={after} per_flow={each}")
    assert core.gauges()["flows"] == flows


if __name__ == "__main__":
    main()
