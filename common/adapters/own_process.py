"""What the system says of this process: a millisecond at most."""

from __future__ import annotations

import os
import resource
import time
from functools import cache
from pathlib import Path

from common.core.program_metrics import ProcessNumbers

_SELF = Path("/proc/self")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def process_numbers() -> ProcessNumbers:
    """Of this moment."""
    times = os.times()
    pages = int((_SELF / "statm").read_text().split()[1])
    return ProcessNumbers(
        cpu=times.user + times.system,
        resident=pages * _PAGE,
        files=len(os.listdir(_SELF / "fd")),
        most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        threads=len(os.listdir(_SELF / "task")),
        started=_started(),
    )


@cache
def _started() -> float:
    """When the process began, in seconds since 1970, as the clock is set at the first question."""
    ticks = (_SELF / "stat").read_text().rpartition(")")[2].split()[19]  # since the host's start
    since_boot = int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
