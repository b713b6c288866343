"""Work done in a child process while packets go on; see common.adapters.aside for the time before.

The child is a fork, which shares the parent's memory as it was: the parent goes on after some
milliseconds, whatever the work takes. It has none of the parent's descriptors: closing its copies
takes nothing from the parent, and keeping them would hold a queue, or a lock, beyond its end.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN
from typing import Any, TypeVar

from common.adapters.aside import report
from common.adapters.watch import Watch

R = TypeVar("R")

MOST = 4  # children at once
LONGEST = 30.0  # seconds that work may take, unless told otherwise
ANSWER_BYTES = 256 << 20  # of a pickled result
_READ = 1 << 20


class BusyError(Exception):
    """As many children as there may be are at work."""


class Meanwhile:
    """Starts children and gives what they find to callbacks, in the loop."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._children: set[_Child] = set()

    def run(
        self,
        work: Callable[[], R],
        done: Callable[[R], None],
        failed: Callable[[Exception], None],
        seconds: float = LONGEST,
    ) -> None:
        """Have ``done`` called with what ``work`` returns, or ``failed`` with what it raises, both
        picklable; with TimeoutError where it takes longer, ChildProcessError where the child ends
        without an answer. Raises BusyError or OSError where no child can be had."""
        if len(self._children) >= MOST:
            raise BusyError(f"{MOST} children are at work already")
        self._children.add(_Child(self._watch, work, done, failed, self._children.discard, seconds))

    def close(self) -> None:
        """End the children that are at work; nobody is told."""
        for child in list(self._children):
            child.end()


class _Child:
    def __init__(
        self,
        watch: Watch,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        gone: Callable[[_Child], None],
        seconds: float,
    ) -> None:
        self._watch, self._done, self._failed, self._gone = watch, done, failed, gone
        self._parts: list[bytes] = []
        self._size = 0
        self._seconds = seconds
        self._ended = False
        self._reading, writing = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._reading)
            os.close(writing)
            raise
        if self._pid == 0:
            _become_a_child(writing, seconds)
            report(writing, work)
        os.close(writing)
        os.set_blocking(self._reading, False)
        watch.add(self._reading, POLLIN, self._read)
        watch.at(watch.clock() + seconds, self._late)

    def end(self) -> None:
        """Bury it, whatever it does."""
        if self._ended:
            return
        self._ended = True
        self._watch.remove(self._reading)
        os.close(self._reading)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # it has said all, or is not to say more
        os.waitpid(self._pid, 0)
        self._gone(self)

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._reading, _READ)
        except BlockingIOError:
            return
        self._size += len(data)
        if data and self._size <= ANSWER_BYTES:
            self._parts.append(data)
            return
        self.end()
        self._tell(b"".join(self._parts) if not data else b"")

    def _tell(self, answer: bytes) -> None:
        try:
            result, error = pickle.loads(answer)
        except Exception:  # nothing, or not all of it
            error = ChildProcessError("the work's process ended without an answer")
        if error is not None:
            self._failed(error)
        else:
            self._done(result)

    def _late(self, _now: float) -> None:
        if not self._ended:
            self.end()
            self._failed(TimeoutError(f"not done in {self._seconds:g} s"))


def _become_a_child(writing: int, seconds: float) -> None:
    """Forget what is the parent's, and that it lives: the child ends by itself."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(int(seconds) + 1)
        os.closerange(3, writing)
        os.closerange(writing + 1, max(os.sysconf("SC_OPEN_MAX"), 65536))
    except BaseException:
        os._exit(1)
