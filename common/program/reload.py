"""What both programs' reloads have in common."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from common.adapters.meanwhile import BusyError, Meanwhile
from common.program.control.basics import Done

R = TypeVar("R")

log = logging.getLogger(__name__)


class Turns:
    """Changes of rules that must not overlap: each begins when the one before has said that it is
    over."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[Callable[[], None]], None]] = deque()
        self._going = False

    def take(self, begin: Callable[[Callable[[], None]], None]) -> None:
        """Have ``begin`` called now or later, with what it is to call, once, when it is over."""
        self._waiting.append(begin)
        if not self._going:
            self._next()

    def _next(self) -> None:
        self._going = bool(self._waiting)
        if self._going:
            self._waiting.popleft()(self._next)


def look_aside(
    meanwhile: Meanwhile, work: Callable[[], R], take: Callable[[R], None], done: Done
) -> None:
    """Have ``take`` called with what ``work`` finds in a child process; or ``done`` with what
    prevented it."""
    try:
        meanwhile.run(work, take, lambda error: done([str(error)]))
    except (BusyError, OSError) as error:
        done([str(error)])


def ending(over: Callable[[], None], done: Done) -> Done:
    """``done`` of something that has a turn: its end is the turn's."""

    def ended(mistakes: list[str]) -> None:
        over()
        done(mistakes)

    return ended


def let_go_aside(
    meanwhile: Meanwhile, install: Callable[[], None], over: Callable[[], None]
) -> None:
    """Have rules installed that lack those of a former configuration, and the turn end."""

    def left(mistakes: list[str]) -> None:
        log.warning("rules of the configuration before are left: %s", mistakes[0])

    look_aside(meanwhile, install, lambda _: over(), ending(over, left))


def fixed(keys: Iterable[str], old: object, new: object) -> Iterator[str]:
    """A mistake for each of these settings that is another than before: they are made use of once,
    for as long as the program runs. A key may have dots."""
    for key in keys:
        if attrgetter(key)(old) != attrgetter(key)(new):
            yield f"{key}: is another than at the start; right would be the same, or a restart"
