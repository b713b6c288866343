"""Slow start: who comes back, or is new, gets its full share little by little.

A member's share grows with time, from next to nothing to all of what its weight says. It is
measured against the one that is furthest along, so that where all have just come back all are
equal, and so that a share never shrinks while the same members take flows.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.core.choice.member import WHOLE, Member

STEPS = 64
"""How often during a slow start the shares are worked out."""


def ramp(takers: Sequence[Member], duration: float, now: float) -> bool:
    """Set the takers' shares; True while one of them is not at its end."""
    along = [_along(member, duration, now) for member in takers]
    furthest = max(along, default=1.0)
    for member, fraction in zip(takers, along, strict=True):
        if fraction == 1.0:
            member.starting = None
        member.share = max(1, int(WHOLE * fraction / furthest)) if furthest else WHOLE
        member.settle()
    return any(member.starting is not None for member in takers)


def _along(member: Member, duration: float, now: float) -> float:
    if member.starting is None or not duration or now - member.starting >= duration:
        return 1.0
    return max(0.0, (now - member.starting) / duration)
