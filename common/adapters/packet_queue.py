"""A netfilter queue: packets from the kernel, verdicts back."""

from __future__ import annotations

from contextlib import suppress

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

MAX_PACKET = 4016  # bytes that NetfilterQueue copies of a packet; a verdict would cut a longer one
# A queue takes a burst of many connections' windows; beyond it the kernel drops and counts.
QUEUE_PACKETS = 16384
SOCKET_BYTES = 64 << 20

_STATISTICS = "/proc/net/netfilter/nfnetlink_queue"

Taken = tuple[Packet, bytes, int]  # a packet, what it holds, and its mark


class _Enough(Exception):
    """Leaves the library's loop, from between two packets."""


class PacketQueue:
    """Gives packets that wait, of which there are ``packets`` at most, and takes verdicts on them.

    Raises OSError where the queue cannot be had (another program has it, or no privileges).
    """

    def __init__(self, number: int, packets: int = QUEUE_PACKETS) -> None:
        self._number = number
        self._taken: list[Taken] = []
        self._most = 0
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

    def take(self, most: int) -> list[Taken]:
        """The oldest that wait, at most so many: under load there is always one more. Each is to
        be given a verdict."""
        taken: list[Taken] = []
        self._taken, self._most = taken, most
        with suppress(_Enough):
            self._queue.run(block=False)
        return taken

    @staticmethod
    def give(packet: Packet, data: bytes, verdict: bytes | None) -> None:
        """Have a packet that held ``data`` go on as ``verdict`` (the same object: unchanged), or
        dropped where that is None."""
        if verdict is None:
            packet.drop()
            return
        if verdict is not data:
            packet.set_payload(verdict)
        packet.accept()

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
        self._taken.append((packet, packet.get_payload(), packet.get_mark()))
        if len(self._taken) >= self._most:
            raise _Enough
