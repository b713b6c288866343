"""What happened, by name: counters that cost one dict update, and notes for the log.

Each packet that a program takes has exactly one Outcome, so that the outcomes add up to the
packets; all else worth counting is an Occurrence. A name is one or the other, never both.

The core does not log. It counts each drop under its reason and leaves a note, and what runs the
core writes notes to the log at a bounded rate.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

DROP: bytes | None = None  # the verdict of a packet that goes no further

_MAX_NOTES = 256  # between two collections; counters go on beyond it


class Outcome(StrEnum):
    """What became of a packet. Its subclasses, each beside what it is about, have the names."""


class Occurrence(StrEnum):
    """What is counted besides, its subclasses as above: some packets cause several, some none."""


class Ledger:
    """``counts`` by name; ``notes`` of (reason, packet or text) since they were last taken.

    ``warnings`` of (kind, text) are for the operator. With ``verbose`` set, choices are noted too
    (debug level).
    """

    __slots__ = ("counts", "events", "notes", "verbose", "warnings")

    def __init__(self, verbose: bool = False) -> None:
        self.counts: Counter[Outcome | Occurrence] = Counter()
        self.notes: list[tuple[str, bytes]] = []
        self.events: list[str] = []
        self.warnings: list[tuple[str, str]] = []
        self.verbose = verbose

    def drop(self, reason: Outcome, packet: bytes) -> bytes | None:
        """Count and note that ``packet`` was dropped for ``reason``; gives the verdict."""
        self.counts[reason] += 1
        self._note(reason, packet)
        return DROP

    def took(self, outcome: Outcome) -> bytes | None:
        """Count a packet that goes no further and has served its end; gives the verdict."""
        self.counts[outcome] += 1
        return DROP

    def passed(self, outcome: Outcome, packet: bytes) -> bytes:
        """Count a packet that goes on as ``packet``; gives the verdict."""
        self.counts[outcome] += 1
        return packet

    def gave_up(self, reason: Occurrence, packet: bytes) -> None:
        """Count and note what was given up without a packet that caused it; ``packet`` shows whose
        it was."""
        self.counts[reason] += 1
        self._note(reason, packet)

    def warn(self, kind: str, text: str) -> None:
        """Note what an operator should look at; ``kind`` bounds how often it is said."""
        if len(self.warnings) < _MAX_NOTES:
            self.warnings.append((kind, text))

    def event(self, text: str) -> None:
        """Note ``text`` for the debug log; callers test ``verbose`` before they format."""
        if len(self.events) < _MAX_NOTES:
            self.events.append(text)

    def _note(self, reason: str, packet: bytes) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append((reason, packet))
