"""The client's side, which waits for its answers."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from common.adapters.control.messages import ANSWER_BYTES, MessageError, decode_answer, encode

TIMEOUT = 10.0  # seconds for a line of an answer, unless told otherwise
_READ = 65536


class ControlError(Exception):
    """No answer, or not the one that was asked for; the text, one line, says why."""


class NotRunningError(ControlError):
    """Nobody listens at the socket."""


class RefusedError(ControlError):
    """The program's own words for why it does not do as it is told."""


class ControlClient:
    """Asks the program at the other end of a connected Unix socket; ``name`` is the program's."""

    def __init__(self, connected: socket.socket, name: str, timeout: float = TIMEOUT) -> None:
        self._socket = connected
        self._name = name
        self._timeout = timeout
        self._in = bytearray()

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result; raises ControlError. Of a command that answers in parts: see ``pages``."""
        pages = self.pages(command, **arguments)
        while True:
            try:
                next(pages)
            except StopIteration as done:
                return done.value

    def pages(
        self, command: str, *, patience: float | None = 0.0, **arguments: Any
    ) -> Generator[list[Any], None, Any]:
        """The parts of an answer as they come, lists of items; at last returns the result.

        ``patience`` bounds the seconds between two parts: None for no bound, 0 for the usual one.
        """
        self._socket.settimeout(self._timeout)
        asked = {name: value for name, value in arguments.items() if value is not None}
        try:
            with suppress(BrokenPipeError):  # it may have said why before it closed the connection
                self._socket.sendall(encode({"command": command, "arguments": asked}))
            while True:
                self._socket.settimeout(self._timeout if patience == 0 else patience)
                kind, said = decode_answer(self._line())
                if kind == "result":
                    return said
                if kind == "error":
                    raise RefusedError(str(said))
                yield said
        except TimeoutError:
            raise ControlError(f"{self._name} has not answered in {self._timeout:g} s") from None
        except MessageError as error:
            raise ControlError(f"{self._name} answers what cannot be read: {error}") from None
        except OSError as error:
            raise ControlError(f"{self._name} is gone: {error.strerror or error}") from None

    def all(self, command: str, **arguments: Any) -> list[Any]:
        """The items of all parts."""
        return [item for page in self.pages(command, **arguments) for item in page]

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        searched = 0
        while (end := self._in.find(b"\n", searched)) < 0:
            searched = len(self._in)
            if searched > ANSWER_BYTES:
                raise MessageError("a line without an end")
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it has closed the connection")
            self._in += data
        line = bytes(self._in[:end])
        del self._in[: end + 1]
        return line


def connect(path: str, name: str, timeout: float = TIMEOUT) -> ControlClient:
    """A client of the program ``name`` at its socket; raises ControlError."""
    if not path:
        raise ControlError(f"{name} is configured without a control socket ([control] socket)")
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        caller.settimeout(timeout)
        caller.connect(path)
    except OSError as error:
        caller.close()
        raise _failure(path, name, error) from None
    return ControlClient(caller, name, timeout)


def _failure(path: str, name: str, error: OSError) -> ControlError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return NotRunningError(f"{name} is not running (no answer at {path})")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ControlError(f"{path}: not for this user{_whose(path)}")
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return ControlError(f"{name} does not answer at {path}")
    return ControlError(f"{path}: {error.strerror or error}")


def _whose(path: str) -> str:
    with suppress(OSError, ImportError, KeyError):
        import grp  # noqa: PLC0415 - for this message only

        group = grp.getgrgid(os.stat(path).st_gid).gr_name
        return f"; root and the group {group} may use it"
    return ""
