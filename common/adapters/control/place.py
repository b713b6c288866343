"""The socket's place in the file system, and who may use it."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RUN = Path("/run/l3dsr")  # made where it is missing; others are their owner's to make
MODE = 0o660
WAITING = 16  # connections that have not been accepted yet


class ControlSocketError(Exception):
    """The socket cannot be had; the text names the file, what is wrong and what mends it."""

    def __init__(self, path: str, what: str, cure: str) -> None:
        super().__init__(f"control socket {path}: {what}; mend: {cure}")


@contextmanager
def listening(path: str, group: str | None) -> Iterator[socket.socket]:
    """A listening Unix socket for its owner and, if one is named, the group; removed at the end.

    One that was left by a program that is gone is replaced. Raises ControlSocketError.
    """
    number = None if group is None else _group(path, group)
    _make_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        _bind(listener, path)
        there = os.stat(path)
        try:
            _give(path, number, group)
            listener.listen(WAITING)
            listener.setblocking(False)
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(there, os.stat(path)):  # and not its successor's
                    os.unlink(path)


def _group(path: str, name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ControlSocketError(
            path, f"there is no group '{name}'", f"groupadd --system {name}, or another group"
        ) from None


def _make_way(path: str) -> None:
    """Make the directory, and remove a socket that nobody listens at."""
    directory = Path(path).parent
    try:
        if directory == RUN:
            directory.mkdir(mode=0o755, exist_ok=True)
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refusal(path, error) from None
    if not stat.S_ISSOCK(kind):
        what = "there is something else of that name"
        raise ControlSocketError(path, what, "remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # one that is too busy to be reached is not gone
        found = caller.connect_ex(path)
    if found != errno.ECONNREFUSED:
        what = "a running program listens there"
        raise ControlSocketError(path, what, "stop it, or choose another path")
    try:
        os.unlink(path)
    except OSError as error:
        raise _refusal(path, error) from None


def _bind(listener: socket.socket, path: str) -> None:
    before = os.umask(0o177)  # nobody else's until it is given to somebody
    try:
        listener.bind(path)
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        os.umask(before)


def _give(path: str, number: int | None, group: str | None) -> None:
    try:
        if number is not None:
            os.chown(path, -1, number)
        os.chmod(path, MODE)
    except OSError as error:
        cure = f"run as root, or as a member of group '{group}'"
        raise ControlSocketError(path, error.strerror or str(error), cure) from None


def _refusal(path: str, error: OSError) -> ControlSocketError:
    directory = Path(path).parent
    cures = {
        errno.ENOENT: f"mkdir {directory}",
        errno.EACCES: f"give this user {directory}, or choose another path",
        errno.EPERM: f"give this user {directory}, or choose another path",
        errno.EROFS: "choose a path in /run",
    }
    cure = cures.get(error.errno or 0, "choose another path: [control] socket")
    return ControlSocketError(path, error.strerror or str(error), cure)
