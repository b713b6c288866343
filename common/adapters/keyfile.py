"""The file with the secret that a balancer and its bridges share: 32 random bytes in hex, one line.

A second line may hold another key: what comes in may be signed with it as well. With the first a
program signs.

Nobody but its owner may read it: who knows the key can give any connection to any bridge.
"""

import os
import pwd
import re
import stat
from collections.abc import Sequence
from pathlib import Path

SIZE = 32  # bytes of a new key
MAKER = "balancer"  # the program on whose host the key is made; the others get a copy
SERVICE_USER = "l3dsr"  # as whom systemd's units run the programs
RUNNING = ""  # a program that has a key already: a new one would be nobody else's
SHORTEST, LONGEST = 16, 64  # bytes of a key that is accepted

_KEY = f"(?:[0-9a-fA-F]{{2}}){{{SHORTEST},{LONGEST}}}"
_KEYS = re.compile(f"{_KEY}(?:\n{_KEY})?\n?")


class KeyFileError(Exception):
    """A key file that cannot be used; `cure` is the command that mends it, or what to do."""

    def __init__(self, text: str, cure: str) -> None:
        super().__init__(text, cure)  # both: an exception is unpickled from its arguments
        self.text, self.cure = text, cure

    def __str__(self) -> str:
        return self.text


class Unreadable(KeyFileError):
    """No file is there, or this user may not read it."""


def load(path: str, program: str = MAKER) -> tuple[bytes, ...]:
    """The keys, one or two of 16 to 64 bytes, that to sign with first; raises KeyFileError, whose
    cure is for a host of `program`.

    A file that others can read or replace is refused: its key is no secret.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            _check_access(path, os.fstat(file.fileno()))
            content = file.read(8 * LONGEST)
    except FileNotFoundError:
        what = f"key file {path} does not exist (all hosts need a copy of the same one)"
        raise Unreadable(what, _new_key(path, program)) from None
    except OSError as error:
        cure = f"chown {os.geteuid()} {path}, or run the program as root"
        raise Unreadable(f"key file {path} cannot be read: {error.strerror}", cure) from None
    return _decode(path, content, program)


def create(path: str) -> None:
    """Write a new random key, readable by its owner only; missing directories are made.

    Raises KeyFileError, for a file that exists too: the bridges may have copies of its key.
    """
    if os.path.isdir(path):
        raise KeyFileError(f"{path} is a directory", f"name a file, such as {Path(path, 'key')}")
    if os.path.lexists(path):
        cure = f"keep it, or remove it first (rm {path}); every host then needs the new one"
        raise KeyFileError(f"{path} exists and is not overwritten", cure)
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        cure = "run it as root, or name another file"
        raise KeyFileError(f"{path} cannot be written: {error.strerror}", cure) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask is
        file.write(text([new_key()]))


def new_key() -> bytes:
    return os.urandom(SIZE)


def text(keys: Sequence[bytes]) -> str:
    """What a file with these keys holds."""
    return "".join(f"{key.hex()}\n" for key in keys)


def _check_access(path: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"key file {path} is not a file", f"name another file than {path}")
    if mode & 0o077:
        what = f"key file {path} has mode {mode:04o}: others than its owner have access"
        raise KeyFileError(what, f"chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid(), *_service()):
        what = f"key file {path} belongs to user {status.st_uid}, who can replace it"
        raise KeyFileError(what, f"chown {os.geteuid()} {path}")


def _service() -> list[int]:
    """The user of the services on this host, if they are installed."""
    try:
        return [pwd.getpwnam(SERVICE_USER).pw_uid]
    except KeyError:
        return []


def _decode(path: str, content: str, program: str) -> tuple[bytes, ...]:
    if _KEYS.fullmatch(content):
        return tuple(dict.fromkeys(map(bytes.fromhex, content.split())))
    wanted = f"one line of {2 * SHORTEST} to {2 * LONGEST} hexadecimal digits, or two"
    cure = _new_key(path, program)
    if program == MAKER:
        cure = f"rm {path} && {cure}"
    raise KeyFileError(f"key file {path} does not hold {wanted}", cure)


def _new_key(path: str, program: str) -> str:
    """How a host of `program` comes by its key: one made on a bridge would fit no balancer's."""
    if program == RUNNING:
        return f"copy {path} from a host that has the right one"
    return f"{MAKER} keygen {path}" if program == MAKER else f"copy {path} from the balancer's host"
