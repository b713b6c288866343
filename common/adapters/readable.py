"""Waiting for something to read."""

from __future__ import annotations

import math
import select
from typing import Protocol


class File(Protocol):
    def fileno(self) -> int: ...


def readable(file: File, seconds: float) -> bool:
    """Whether a file can be read, or has an error to tell, now or within so many seconds; unlike
    select.select also for the descriptors of a process that has over 1,024 of them."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(max(math.ceil(seconds * 1000), 0)))
