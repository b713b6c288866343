"""One balancer and one packetbridge on a host: whichever its configuration, each has the same names
for its rules, its programs at tc and its connections there.

The sign is an abstract Unix socket: it belongs to a network namespace, and goes with its process.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


@contextmanager
def alone(program: str) -> Iterator[None]:
    """Be the one that runs here, for a while; OSError where another does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sign:
        try:
            sign.bind(_name(program))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"{program} runs on this host already") from None
            raise
        sign.listen()
        yield


def runs(program: str) -> int | None:
    """The process that is the one here, None where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(_name(program))
        except ConnectionRefusedError:
            return None
        option = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        process: int = _CREDENTIALS.unpack(option)[0]
        return process


def _name(program: str) -> bytes:
    return f"\0l3dsr/{program}".encode()
