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

from common.core.keys import derive

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


def last(flows: int, room: int) -> list[bytes]:
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
    filled = importlib.import_module(f"tests.resources.idle_{program}")  # not the other program
    gc.disable()
    later: list[int] = []

    def watch(number: int) -> None:
        if number == int(MOST_OF_THEM * flows):
            later.append(resident())

    before = resident()
    core = filled.fill(flows, room, derive(bytes(32)), watch)
    after, kept = resident(), core.gauges()["flows"]
    each = (after - before) // kept
    print(f"{program} flows={kept} before={before} most={later[0]} after={after} per_flow={each}")


if __name__ == "__main__":
    main()
