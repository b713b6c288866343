"""The key file's keys, derived for their purposes."""

from __future__ import annotations

from common.adapters import keyfile
from common.core.keys import Keys, derive


def read_keys(path: str, program: str = keyfile.RUNNING) -> tuple[Keys, ...]:
    """The keys in the file, that to sign with first; raises KeyFileError, whose cure is for
    ``program``, about to start, or for one that runs."""
    return tuple(derive(shared) for shared in keyfile.load(path, program))
