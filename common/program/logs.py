"""Logging of both programs: one line a record to stderr, where a journal or a terminal takes it."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

PACKAGES = ("balancer", "packetbridge", "common")


class OneLine(logging.Formatter):
    """`TIME LEVEL message`; line breaks, in tracebacks too, are written as a visible \\n."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


def setup(level: str) -> None:
    """Log everything from `level` (debug, info, warning, error) on; once, when a program starts.

    Of libraries only warnings: what they say at the lower levels would bury what this program says.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


@dataclass(slots=True)
class _Window:
    ends: float
    level: int
    written: int = 0
    left_out: int = 0


class BoundedLog:
    """A log that no flood of packets can fill: at most `lines` records of a kind in `period`
    seconds, then one that counts the others.

    A kind is a fixed name, such as a drop's reason: there is memory for as many as are used.
    """

    def __init__(
        self,
        logger: logging.Logger,
        lines: int = 5,
        period: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._lines = lines
        self._period = period
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def log(
        self, level: int, kind: str, message: str, *arguments: object, exc_info: bool = False
    ) -> None:
        """Write `KIND: message`, unless there were enough of the kind; `exc_info` as in logging."""
        if not self._logger.isEnabledFor(level):
            return
        now = self._clock()
        window = self._windows.get(kind)
        if window is None or now >= window.ends:
            self._close(kind)
            window = self._windows[kind] = _Window(now + self._period, level)
        if window.written < self._lines:
            window.written += 1
            self._logger.log(level, f"%s: {message}", kind, *arguments, exc_info=exc_info)
        else:
            window.left_out += 1

    def flush(self) -> None:
        """Write the counts of periods that are over; for a caller's regular round."""
        now = self._clock()
        for kind in [kind for kind, window in self._windows.items() if now >= window.ends]:
            self._close(kind)

    def _close(self, kind: str) -> None:
        window = self._windows.pop(kind, None)
        if window is not None and window.left_out:
            self._logger.log(window.level, "%s: … and %d more like it", kind, window.left_out)
