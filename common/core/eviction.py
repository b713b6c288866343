"""Who makes room when a table is full: the connection that has been silent longest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

LOOKS = 64  # flows looked at in one go
SPARED = 1.0  # seconds: who was heard of since then is not idle, however many others come


class Placed(Protocol):
    """``seen`` is when the flow was last heard of, ``placed`` what that was when it took its place
    in its table."""

    seen: float
    placed: float


P = TypeVar("P", bound=Placed)


def longest_idle(
    flows: OrderedDict[bytes, P],
    now: float,
    recall: Callable[[P], None] = lambda _: None,
    spared: float = SPARED,
) -> P | None:
    """The flow that has been silent longest, as far as LOOKS looks tell; None where all that were
    looked at have been heard of in the last ``spared`` seconds (-inf: nobody is spared).

    A packet only writes the time (``seen``): a flow that was heard of since it took its place goes
    to the end when it is met here, so that the first that was not has been silent longest.
    ``recall`` brings ``seen`` up to what only the kernel has seen.
    """
    longest: P | None = None
    for _ in range(min(LOOKS, len(flows))):
        key, flow = next(iter(flows.items()))
        recall(flow)
        if longest is None or flow.seen < longest.seen:
            longest = flow
        if flow.seen == flow.placed:
            break
        flow.placed = flow.seen
        flows.move_to_end(key)
    return longest if longest is not None and now - longest.seen >= spared else None
