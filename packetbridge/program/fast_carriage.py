"""What the kernel has carried of datagrams by each way in (packetbridge/fastpath/datagrams.h)."""

from __future__ import annotations

from common.adapters.bpf.layout import Layout
from common.adapters.bpf.object import Object
from packetbridge.core.entry import Entry

DOOR_KEY = Layout("door_key", [("address", "4s"), ("port", "2s"), ("dscp", "B"), ("pad", "B")])
CARRIED = Layout("carried", [("mappings", "Q"), ("up_bytes", "Q"), ("down_bytes", "Q")])


def door_key(entry: Entry) -> bytes:
    """Of a way in, as the kernel's maps have it."""
    return DOOR_KEY.pack(entry.address, entry.port.to_bytes(2, "big"), entry.dscp, 0)


class Carriage:
    """What the kernel has carried by each way in, on its way to the figures."""

    def __init__(self, loaded: Object) -> None:
        size = CARRIED.size * loaded.processors()
        self._map = loaded.map("carriage", DOOR_KEY.size, size)
        self._nothing = bytes(size)
        self._entries: dict[bytes, Entry] = {}
        self._before: dict[bytes, tuple[int, int, int]] = {}

    def follow(self, doors: dict[bytes, Entry]) -> None:
        """Count for these from now on, by their keys."""
        self.read()
        for key in self._entries.keys() - doors.keys():
            self._map.remove(key)
            self._before.pop(key, None)
        for key in doors.keys() - self._entries.keys():
            self._map.put(key, self._nothing)
        self._entries = dict(doors)

    def read(self) -> None:
        """Add to the figures what has come since it was last read."""
        for key, entry in self._entries.items():
            values = self._map.get(key)
            if values is None:
                continue
            numbers = memoryview(values).cast("Q")
            now = sum(numbers[::3]), sum(numbers[1::3]), sum(numbers[2::3])
            before = self._before.get(key, (0, 0, 0))
            self._before[key] = now
            opened, up, down = (more - less for more, less in zip(now, before, strict=True))
            entry.figures.opened += opened
            entry.figures.up_bytes += up
            entry.figures.down_bytes += down
