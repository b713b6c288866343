"""What both programs' reloads have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from common.adapters.meanwhile import BusyError, Meanwhile
from common.program.control.basics import Done

R = TypeVar("R")


def look_aside(
    meanwhile: Meanwhile, work: Callable[[], R], take: Callable[[R], None], done: Done
) -> None:
    """Have ``take`` called with what ``work`` finds in a child process; or ``done`` with what
    prevented it."""
    try:
        meanwhile.run(work, take, lambda error: done([str(error)]))
    except (BusyError, OSError) as error:
        done([str(error)])


def fixed(keys: Iterable[str], old: object, new: object) -> Iterator[str]:
    """A mistake for each of these settings that is another than before: they are made use of once,
    for as long as the program runs. A key may have dots."""
    for key in keys:
        if attrgetter(key)(old) != attrgetter(key)(new):
            yield f"{key}: is another than at the start; right would be the same, or a restart"
