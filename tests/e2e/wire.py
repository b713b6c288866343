"""A wire that misbehaves, as the kernel may have no netem: packets of a queue are lost, held, or
doubled.

    python -m tests.e2e.wire QUEUE FAULTS

Prints "ready", applies FAULTS (JSON, see Faults) until SIGTERM, and prints what it did (JSON: by
deed, the number of packets and of those with the handoff option).
"""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

DEEDS = ("passed", "lost", "held", "overtaken", "doubled")
HANDOFF_KIND = 253  # of the TCP option
ETH_P_IP = 0x0800


@dataclass(frozen=True)
class Faults:
    """``lose_first``: so many packets of each connection; of the others, the share ``hold`` arrives
    ``late`` (seconds), and of the share ``double`` a copy does so, too."""

    lose_first: int = 0
    hold: float = 0.0
    double: float = 0.0
    late: float = 0.0
    # where copies leave: by destination address, interface and link address
    ports: dict[str, tuple[str, str]] = field(default_factory=dict)


class Wire:
    """Judges each packet; ``release`` lets go what is due."""

    def __init__(self, faults: Faults) -> None:
        self.deeds = {deed: [0, 0] for deed in DEEDS}
        self._faults = faults
        self._random = random.Random(1)
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._seen: Counter[bytes] = Counter()  # packets, by connection
        self._direct: Counter[bytes] = Counter()  # and those that were not held
        self._copies = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)

    def arrives(self, packet: Packet) -> None:
        faults, data = self._faults, packet.get_payload()
        connection, handoff = _connection(data), _has_handoff(data)
        self._seen[connection] += 1
        if self._seen[connection] <= faults.lose_first:
            packet.drop()
            self._did("lost", handoff)
            return
        self._did("passed", handoff)
        if faults.double and self._random.random() < faults.double:
            self._later(lambda: self._copy(data, handoff))
        if faults.hold and self._random.random() < faults.hold:
            before = self._direct[connection]
            self._did("held", handoff)
            self._later(lambda: self._let_go(packet, connection, before, handoff))
        else:
            self._direct[connection] += 1
            packet.accept()

    def release(self, everything: bool = False) -> float:
        """Let go what is due, or everything; gives the seconds until more is."""
        now = time.monotonic()
        while self._waiting and (everything or self._waiting[0][0] <= now):
            self._waiting.popleft()[1]()
        return self._waiting[0][0] - now if self._waiting else 0.1

    def _later(self, action: Callable[[], None]) -> None:
        if self._faults.late:
            self._waiting.append((time.monotonic() + self._faults.late, action))
        else:
            action()

    def _let_go(self, packet: Packet, connection: bytes, before: int, handoff: bool) -> None:
        if self._direct[connection] > before:
            self._did("overtaken", handoff)
        packet.accept()

    def _copy(self, data: bytes, handoff: bool) -> None:
        """Behind the rules that queue: the copy itself meets no fault."""
        port, link = self._faults.ports[socket.inet_ntoa(data[16:20])]
        self._copies.sendto(data, (port, ETH_P_IP, 0, 0, bytes.fromhex(link)))
        self._did("doubled", handoff)

    def _did(self, deed: str, handoff: bool) -> None:
        self.deeds[deed][0] += 1
        self.deeds[deed][1] += handoff


def work(number: int, wire: Wire) -> None:
    """Serve a queue until SIGTERM."""
    stopping: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        stopping.append(signum)

    signal.signal(signal.SIGTERM, stop)
    queue = NetfilterQueue()
    queue.bind(number, wire.arrives, max_len=100_000, mode=COPY_PACKET, sock_len=64 << 20)
    poll = select.poll()
    poll.register(queue.get_fd(), select.POLLIN)
    print("ready", flush=True)
    while not stopping:
        if poll.poll(max(wire.release(), 0) * 1000):
            queue.run(block=False)
    wire.release(everything=True)
    queue.unbind()


def _connection(data: bytes) -> bytes:
    """Addresses and ports."""
    at = (data[0] & 15) * 4
    return data[12:20] + data[at : at + 4]


def _has_handoff(data: bytes) -> bool:
    at = (data[0] & 15) * 4
    options = data[at + 20 : at + (data[at + 12] >> 4) * 4]
    while options and options[0]:
        if options[0] == HANDOFF_KIND:
            return True
        options = options[1 if options[0] == 1 else options[1] :]
    return False


if __name__ == "__main__":
    busy = Wire(Faults(**json.loads(sys.argv[2])))
    work(int(sys.argv[1]), busy)
    print(json.dumps(busy.deeds))
