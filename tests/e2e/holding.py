"""Holds packets of a netfilter queue for a while: delay where the kernel has no netem.

    python -m tests.e2e.holding QUEUE SECONDS

Prints "ready", then lets each packet go as long after its arrival, in order, until SIGTERM.
"""

from __future__ import annotations

import select
import signal
import sys
import time
from collections import deque
from types import FrameType

from netfilterqueue import COPY_META, NetfilterQueue, Packet


def hold(number: int, seconds: float) -> None:
    waiting: deque[tuple[float, Packet]] = deque()
    stopping: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        stopping.append(signum)

    signal.signal(signal.SIGTERM, stop)
    queue = NetfilterQueue()
    queue.bind(
        number,
        lambda packet: waiting.append((time.monotonic() + seconds, packet)),
        max_len=100_000,
        mode=COPY_META,
        sock_len=64 << 20,
    )
    poll = select.poll()
    poll.register(queue.get_fd(), select.POLLIN)
    print("ready", flush=True)
    while not stopping:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            waiting.popleft()[1].accept()
        wait = max(waiting[0][0] - now, 0) * 1000 if waiting else 100
        if poll.poll(wait):
            queue.run(block=False)
    for _, packet in waiting:
        packet.accept()
    queue.unbind()


if __name__ == "__main__":
    hold(int(sys.argv[1]), float(sys.argv[2]))
