"""How many packets wait in the netfilter queues of this network namespace."""

from __future__ import annotations

from collections.abc import Iterable

STATISTICS = "/proc/net/netfilter/nfnetlink_queue"


def queue_depths(numbers: Iterable[int], statistics: str = STATISTICS) -> dict[int, int]:
    """Packets waiting, by queue; those that the kernel does not tell of, or not to us, are left
    out."""
    wanted, found = set(numbers), {}
    try:
        with open(statistics, encoding="ascii") as lines:
            for line in lines:
                number, _, waiting = map(int, line.split()[:3])  # the second: who has it
                if number in wanted:
                    found[number] = waiting
    except (OSError, ValueError):
        return {}
    return found
