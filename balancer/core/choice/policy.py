"""What every policy can do: the pool asks it for a member, and tells it what became of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from balancer.core import config
from balancer.core.choice.member import Member

NONE: tuple[Member, ...] = ()


class Policy(ABC):
    """Chooses among the ``takers``: the members that take new flows, in the configuration's order.

    To choose changes nothing. A flow counts from ``opened`` to ``closed``; both are told of every
    member whose ``books`` this policy is, also of one that takes no new flows any more.
    """

    def configure(self, configured: config.Pool) -> None:  # noqa: B027 (may be left out)
        """What of the pool's configuration is the policy's affair; may come again."""

    @abstractmethod
    def settle(self, takers: Sequence[Member]) -> None:
        """Others take new flows than before, or with other shares."""

    @abstractmethod
    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        """The taker for a flow, none of those ``tried`` before; None: nobody is left."""

    @abstractmethod
    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        """Who would be chosen, and who after each had been tried in vain, to the last taker."""

    def opened(self, member: Member, source: bytes, now: float) -> None:  # noqa: B027 (may be left out)
        """A flow of ``source`` was placed; the member's counts hold it already."""

    def closed(self, member: Member, source: bytes, now: float) -> None:  # noqa: B027 (may be left out)
        """It is over; the member's counts do not hold it any more."""
