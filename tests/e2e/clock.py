"""Programs with a clock that a test can set, while the machine's stays right (libfaketime)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.lab import LAB, Lab, until

LIBRARIES = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")


class Clocks:
    """The time of day as some programs see it; their monotonic clock is the machine's."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._now: defaultdict[str, int] = defaultdict(int)

    @staticmethod
    def file(program: str) -> Path:
        return LAB / "run" / f"{program}.clock"

    def set(self, seconds: int, *programs: str) -> None:
        """Let these programs' clocks differ by so much from the machine's; they have noticed."""
        wrong = [program for program in programs if self._now[program] != seconds]
        starts = {program: self._lab.log_end(program) for program in wrong}
        for program in wrong:
            part = self.file(program).with_suffix(".part")
            part.write_text(f"{seconds:+d}\n")
            part.replace(self.file(program))
            self._now[program] = seconds
        for program, start in starts.items():
            until(
                lambda: "this host's clock was set" in self._lab.log(program, start),  # noqa: B023
                5,
                f"{program} sees its clock set",
            )


@contextmanager
def settable_clocks(lab: Lab, *programs: str) -> Iterator[Clocks]:
    """The programs, restarted with such clocks, which are right at first."""
    (library,) = LIBRARIES
    clocks = Clocks(lab)
    try:
        for program in programs:
            clocks.file(program).write_text("+0\n")
            lab.script(
                "restart",
                program,
                LD_PRELOAD=f"{library}",
                FAKETIME_TIMESTAMP_FILE=f"{clocks.file(program)}",
                FAKETIME_NO_CACHE="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
                DONT_FAKE_MONOTONIC="1",
                FAKETIME_DISABLE_SHM="1",
            )
        yield clocks
    finally:
        for program in programs:
            lab.script("restart", program)
            clocks.file(program).unlink(missing_ok=True)
