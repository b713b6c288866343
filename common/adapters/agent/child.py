"""The agent: the process beside the one that judges packets, for what must not disturb it."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

AGENT = (sys.executable, "-P", "-m", "common.program.agent")
SHORTEST, LONGEST = 1.0, 60.0  # seconds before it is started again, doubled each time
STEADY = 60.0  # seconds after which an end is not one of a row any more
LAST = 0.02  # seconds that it is given to write what it has: a restart waits for them

log = logging.getLogger(__name__)


class Child:
    """Keeps an agent running. It is a client of the control protocol, over a socket of its own; it
    ends when that is closed, and so with this process, however this one ends.

    A start takes some milliseconds, as the child shares nothing but the socket, and standard error
    for its log.
    """

    def __init__(self, command: Sequence[str] = AGENT) -> None:
        """``command`` is given the socket's number as its last argument."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0  # when to start, while there is none
        self._started = 0.0
        self._wait = SHORTEST
        self._said: set[str] = set()
        self.starts = 0

    def look(self, now: float) -> socket.socket | None:
        """Start the agent where there is none; a socket to serve it on, if it was started.

        To be called each second or so. ``now`` is monotonic.
        """
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return None
            self._ended(status, now)
        if now < self._due:
            return None
        return self._start(now)

    def close(self) -> None:
        """Wait for the agent to end; the sockets that ``look`` gave are closed by now."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(LAST)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST)

    def _start(self, now: float) -> socket.socket | None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            number = its.fileno()
            try:
                self._process = subprocess.Popen(
                    [*self._command, str(number)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(number,),
                    start_new_session=True,  # a terminal's Ctrl-C is for the program, not for it
                )
            except OSError as error:
                ours.close()
                self._later(now)
                self._say(str(error.errno), "the agent cannot be started: %s", error)
                return None
        self._started = now
        self.starts += 1
        ours.setblocking(False)
        return ours

    def _ended(self, status: int, now: float) -> None:
        self._process = None
        if now - self._started >= STEADY:
            self._wait = SHORTEST
        self._later(now)
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        text = "the agent (health checks, /metrics, access log) ended %s: it is started again"
        self._say(how, text + "; of further ends like this nothing is said", how)

    def _later(self, now: float) -> None:
        self._due = now + self._wait
        self._wait = min(self._wait * 2, LONGEST)

    def _say(self, kind: str, text: str, *arguments: object) -> None:
        if kind not in self._said:
            self._said.add(kind)
            log.warning(text, *arguments)
