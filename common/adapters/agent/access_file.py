"""The access log's file: lines at its end, opened again when it was moved away."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

MODE = 0o640

log = logging.getLogger(__name__)


class AccessFile:
    """Appends lines to the file at ``path``. What cannot be written, to a full disk say, is counted
    in ``lost``, and said once until writing works again; it never raises for it.

    ``written`` and ``lost`` count lines. Writing may block as disks do.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.written = self.lost = 0
        self._file: int | None = None
        self._broken = False  # the file's last line is cut short
        self._said = ""

    def write(self, lines: Sequence[str]) -> None:
        """Append ``lines``, each without its end."""
        left = "".join(line + "\n" for line in lines).encode()
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
                self._file = os.open(self.path, flags, MODE)
            if self._broken:
                left = b"\n" + left
            while left:
                done = os.write(self._file, left)
                self._broken = left[done - 1 : done] != b"\n"
                left = left[done:]
        except OSError as error:
            self._lose(left.count(b"\n"), len(lines), error)
            return
        self.written += len(lines)
        if self._said:
            log.warning("the access log %s is written again; lines lost: %s", self.path, self.lost)
            self._said = ""

    def reopen(self) -> None:
        """Go on in a new file of the same name."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._broken = None, False

    close = reopen

    def _lose(self, left: int, of: int, error: OSError) -> None:
        lost = min(left, of)
        self.lost += lost
        self.written += of - lost
        words = os.strerror(error.errno) if error.errno else str(error)
        if words != self._said:
            log.warning("the access log %s cannot be written: %s", self.path, words)
            self._said = words
