"""Ending many flows for one reason, in parts, so that packets do not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from packetbridge.core.context import Context
from packetbridge.core.ends import end
from packetbridge.core.flow import Flow
from packetbridge.core.states import State
from packetbridge.core.story import End

ENDED, LOOKED = 64, 2048  # flows ended, and looked at, in one go
PAUSE = 0.002  # seconds between two


@dataclass(slots=True)
class _Task:
    left: Iterator[Flow]
    concerned: Callable[[Flow], bool]
    how: End


class Parting:
    """Works on the context's schedule."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def begin(
        self, flows: Iterable[Flow], concerned: Callable[[Flow], bool], how: End, now: float
    ) -> None:
        """End those of the flows, as they are now, that are still ``concerned`` when their turn
        comes; the first ones at once."""
        self._step(_Task(iter(list(flows)), concerned, how), now)

    def _step(self, task: _Task, now: float) -> None:
        ended = 0
        for looked, flow in enumerate(task.left, 1):
            if flow.state is not State.GONE and task.concerned(flow):
                end(self._context, flow, task.how, now)
                ended += 1
            if looked == LOOKED or ended == ENDED:
                self._context.schedule.add(now + PAUSE, self._step, task)
                return
