"""Programs with a clock that a test can set, while the machine's stays as it is."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.lab import LAB, Lab

SOURCE = Path(__file__).with_name("clock.c")
LIBRARY = LAB / "run" / "clock.so"


class Clocks:
    """The time of day as some programs see it; their monotonic clock is the machine's."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._now: defaultdict[str, int] = defaultdict(int)

    @staticmethod
    def file(program: str) -> Path:
        return LAB / "run" / f"{program}.clock"

    def write(self, seconds: int, program: str) -> None:
        """In place, as the program has the file mapped."""
        with self.file(program).open("r+b" if self.file(program).exists() else "wb") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))
        self._now[program] = seconds

    def set(self, seconds: int, *programs: str) -> None:
        """Let these programs' clocks differ by so much from the machine's; they have noticed."""
        wrong = [program for program in programs if self._now[program] != seconds]
        steps = {program: self._lab.growth(program) for program in wrong}
        for program in wrong:
            self.write(seconds, program)
        for growth in steps.values():
            growth.reaches("clock_steps")


@contextmanager
def settable_clocks(lab: Lab, *programs: str) -> Iterator[Clocks]:
    """The programs, restarted with such clocks, which are right at first."""
    build = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", LIBRARY, SOURCE]
    subprocess.run(build, check=True, timeout=30)
    clocks = Clocks(lab)
    try:
        for program in programs:
            clocks.write(0, program)
            own = {"LD_PRELOAD": f"{LIBRARY}", "CLOCK_OFFSET": f"{clocks.file(program)}"}
            lab.script("restart", program, **own)
        yield clocks
    finally:
        for program in programs:
            lab.script("restart", program)
            clocks.file(program).unlink(missing_ok=True)
        LIBRARY.unlink()
