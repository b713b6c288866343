"""A shell at a terminal, as a user sits before it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 20.0  # for whatever a shell is to show


class Terminal:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def types(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def shows(self, pattern: str) -> bool:
        """Whether it does so, in time; what came before it is read and gone."""
        shown, deadline = "", time.monotonic() + SECONDS
        while not re.search(pattern, shown):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} in {shown!r}")
            shown += os.read(self._descriptor, 4096).decode(errors="replace")
        return True


@contextmanager
def terminal(*command: str, **environment: str) -> Iterator[Terminal]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "dumb", **environment})
    try:
        yield Terminal(descriptor)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)
