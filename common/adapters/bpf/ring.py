"""A ring buffer that an eBPF program writes to (BPF_MAP_TYPE_RINGBUF)."""

from __future__ import annotations

import ctypes

from common.adapters.bpf.libbpf import SAMPLE, STOP, BpfError, Library

AT_ONCE = 4096  # records read in one go, more than there is room for in a ring of ours


class Ring:
    """What the program has written, record by record. Raises BpfError where it cannot be read."""

    def __init__(self, library: Library, fd: int) -> None:
        self._consume = library.functions.ring_buffer__consume
        self._taken: list[bytes] = []
        self._sample = SAMPLE(self._take)  # kept: the library calls it
        self._ring = library.functions.ring_buffer__new(fd, self._sample, None, None)
        if not self._ring:
            raise BpfError(f"ring buffer: errno {ctypes.get_errno()}")

    def take(self) -> list[bytes]:
        """The records since the last time, oldest first. Only AT_ONCE: left to itself, the library
        goes on for as long as the program writes faster than they are read, as in a flood."""
        self._consume(self._ring)
        taken, self._taken = self._taken, []
        return taken

    def _take(self, _context: int | None, record: int, size: int) -> int:
        self._taken.append(ctypes.string_at(record, size))
        return STOP if len(self._taken) == AT_ONCE else 0
