"""The three changes of a key file by which its key is replaced, without a connection lost.

    add     a new key in the second line: accepted, not yet signed with
    switch  the lines change places: signed with from now on; the old key is still accepted
    drop    the second line, now the old key's, goes

After each one all hosts get the file and are told to read it again, in any order: what a host signs
with, between two neighbouring steps, is accepted by all others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from common.adapters import keyfile
from common.adapters.keyfile import KeyFileError

Keys = Sequence[bytes]


def add(path: str) -> Keys:
    """The keys that the file now holds; raises KeyFileError."""
    return _changed(path, 1, "--switch or --drop", lambda keys: (*keys, keyfile.new_key()))


def switch(path: str) -> Keys:
    """See `add`."""
    return _changed(path, 2, "--add", lambda keys: (keys[1], keys[0]))


def drop(path: str) -> Keys:
    """See `add`."""
    return _changed(path, 2, "--add", lambda keys: keys[:1])


def _changed(path: str, wanted: int, instead: str, change: Callable[[Keys], Keys]) -> Keys:
    keys = keyfile.load(path)
    if len(keys) != wanted:
        held = "one key" if len(keys) == 1 else "two keys"
        raise KeyFileError(f"{path} holds {held}", f"balancer keygen {instead} {path}")
    changed = change(keys)
    try:
        _replace(os.path.realpath(path), keyfile.text(changed))
    except OSError as error:
        cure = "run it as root, on a file that can be written"
        raise KeyFileError(f"{path} cannot be replaced: {error.strerror}", cure) from None
    return changed


def _replace(path: str, text: str) -> None:
    """Whole or not at all, and never readable by others: a program may be reading it."""
    part = f"{path}.part"
    before = os.stat(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, before.st_mode & 0o777)
        os.fchown(descriptor, before.st_uid, before.st_gid)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(part, path)
