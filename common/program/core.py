"""What the packet loop runs: a program's core, and its part in the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from common.core.keys import Keys
from common.core.ledger import Ledger, Occurrence, Outcome


class Core(Protocol):
    """What the loop runs: the balancer's core or the bridge's."""

    ledger: Ledger
    out: list[tuple[int, bytes]]
    beforehand: list[Callable[[], None]]  # done just before ``out`` is sent, and the verdict given

    def packet(self, data: bytes, now: float, mark: int) -> bytes | None: ...

    def gather(self, now: float) -> None:
        """A turn begins: what the kernel has noted until now comes before its packets."""

    def settle(self) -> None:
        """A turn is over, and most often no packet is waiting: what the kernel is given now
        overtakes none."""

    def next_deadline(self) -> float: ...

    def timers(self, now: float, wall_offset: float) -> None: ...

    def rekey(self, held: Sequence[Keys], now: float) -> str: ...

    def gauges(self) -> dict[str, int]: ...

    def counts(self) -> Counter[Outcome | Occurrence]: ...

    def drain(self, now: float) -> None: ...

    def remaining(self) -> int: ...

    def farewell(self, now: float) -> Iterator[None]: ...


class Kernel(Protocol):
    """The fast path, if there is one: it is in place."""

    def detach(self) -> None: ...
