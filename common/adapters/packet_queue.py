"""A netfilter queue: packets from the kernel, verdicts back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

MAX_PACKET = 4016  # bytes that NetfilterQueue copies of a packet; a verdict would cut a longer one
# A queue takes a burst of many connections' windows; beyond it the kernel drops and counts.
QUEUE_PACKETS = 16384
SOCKET_BYTES = 64 << 20

_STATISTICS = "/proc/net/netfilter/nfnetlink_queue"

Judge = Callable[[bytes, int], bytes | None]


class _Enough(Exception):
    """Leaves the library's loop, from between two packets."""


class PacketQueue:
    """Calls ``judge(packet, mark)`` for each packet; its answer is the verdict: the packet to go
    on (the same object: unchanged) or None to drop. At most ``packets`` wait for it.

    Raises OSError where the queue cannot be had (another program has it, or no privileges).
    """

    def __init__(self, number: int, judge: Judge, packets: int = QUEUE_PACKETS) -> None:
        self._number = number
        self._judge = judge
        self._left = 0
        self._queue = NetfilterQueue()
        self._queue.bind(
            number,
            self._packet,
            max_len=packets,
            mode=COPY_PACKET,
            range=MAX_PACKET,
            sock_len=SOCKET_BYTES,
        )

    def fileno(self) -> int:
        fd: int = self._queue.get_fd()
        return fd

    def run(self, most: int) -> None:
        """Judge what is waiting, at most so many packets: under load there is always one more."""
        self._left = most
        with suppress(_Enough):
            self._queue.run(block=False)

    def close(self) -> None:
        self._queue.unbind()

    def lost(self) -> int:
        """Packets that the kernel dropped because this queue, or its socket, was full."""
        fields = self._statistics()
        return fields[5] + fields[6] if fields else 0

    def waiting(self) -> int:
        """Packets that wait in the kernel now."""
        fields = self._statistics()
        return fields[2] if fields else 0

    def _statistics(self) -> list[int]:
        """Queue, port id, waiting, copy mode, range, dropped, dropped at the socket, ...; nothing
        where they are not told."""
        try:
            with open(_STATISTICS, encoding="ascii") as statistics:
                for line in statistics:
                    fields = [int(field) for field in line.split()]
                    if fields[0] == self._number:
                        return fields
        except OSError:
            pass
        return []

    def _packet(self, packet: Packet) -> None:
        data = packet.get_payload()
        verdict = self._judge(data, packet.get_mark())
        if verdict is None:
            packet.drop()
        else:
            if verdict is not data:
                packet.set_payload(verdict)
            packet.accept()
        self._left -= 1
        if self._left <= 0:
            raise _Enough
