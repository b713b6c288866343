"""What a network card does to packets before the kernel sees them.

Segments that the kernel merges (GRO) it also takes apart again where a queue or a link needs it;
those that a card merges (LRO) nobody can: they are dropped where they are queued or sent on. Linux
switches LRO off on a host that forwards, but not on a bridge's host that does not.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable

from common.adapters.checks import Problem

_SIOCETHTOOL, _GFLAGS, _LRO = 0x8946, 0x25, 1 << 15  # from linux/sockios.h, linux/ethtool.h


def merged_by_the_card(names: Iterable[str]) -> list[Problem]:
    """Interfaces whose card merges segments for good."""
    return [
        Problem(
            f"{name} merges segments by itself (LRO), which cannot be queued or sent on",
            f"ethtool -K {name} lro off",
        )
        for name in names
        if flags(name) & _LRO
    ]


def flags(name: str) -> int:
    """The interface's ethtool flags; none where it knows of none."""
    command = ctypes.create_string_buffer(struct.pack("II", _GFLAGS, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(command))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
        except OSError:
            return 0
    found: int = struct.unpack("II", command.raw[:8])[1]
    return found
