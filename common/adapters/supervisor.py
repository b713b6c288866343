"""What a program tells its service manager: systemd's sd_notify(3), datagrams to a Unix socket that
the environment names. Without one nothing is told."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


class Supervisor:
    """The service manager, if there is one. Telling it never waits and never fails: a manager that
    does not listen is no reason to stop."""

    def __init__(self) -> None:
        name = os.environ.get("NOTIFY_SOCKET", "")
        self._to = "\0" + name[1:] if name.startswith("@") else name
        self._socket = None
        if name:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """All is set up, or read again: the program does its work."""
        self._tell("READY=1")

    def alive(self) -> None:
        """For the manager's watchdog, from what must not stand still."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """The program ends, which may take so long."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._to)
