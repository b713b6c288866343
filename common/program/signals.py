"""Signals, noted when they come and heeded when nothing else is going on."""

from __future__ import annotations

import signal
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
MAX_SIGNALS = 16  # not yet heeded; who sends more gets an answer to the last ones


class Signals:
    """Takes SIGUSR1, SIGUSR2, SIGHUP and those of STOPS from when it is made; ``stopping`` says
    that one of these has come since it was last set to False."""

    def __init__(self) -> None:
        self.stopping = False
        self._noted: deque[int] = deque(maxlen=MAX_SIGNALS)
        for number in (*STOPS, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def __bool__(self) -> bool:
        """Whether any wait to be heeded."""
        return bool(self._noted)

    def take(self) -> Iterator[int]:
        """Those that came, in their order."""
        while self._noted:
            yield self._noted.popleft()

    def note(self, number: int) -> None:
        """As if that signal had come."""
        self._note(number, None)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Only note it: this may run in the middle of anything, of writing to the log too."""
        self._noted.append(number)
        if number in STOPS:
            self.stopping = True


@contextmanager
def wakeups() -> Iterator[socket.socket]:
    """A socket that becomes readable with each signal, so that waiting ends at once."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        reading.close()
        writing.close()
