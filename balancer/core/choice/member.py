"""A member of a pool: a backend as the choice sees it, with its counts and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.core import config

if TYPE_CHECKING:
    from balancer.core.choice.policy import Policy

WHOLE = 64
"""A member's share is counted in 64ths of what its weight says: exact in integers and floats."""


class Member:
    """One backend of one pool, the same object for as long as it is in the pool, reloads included.

    Read by anyone, changed by its `Pool` only: ``weight`` (0: takes no new flows), ``pending``
    (flows in progress), ``given`` (flows so far), ``up`` and, where it is not, the ``reason``,
    ``draining``, and ``starting`` (when a slow start began; None: it has its full share).
    """

    __slots__ = (
        "books",
        "bridge",
        "draining",
        "effective",
        "full",
        "given",
        "name",
        "pending",
        "reason",
        "share",
        "starting",
        "taking",
        "up",
        "weight",
    )

    def __init__(self, backend: config.Backend) -> None:
        self.name = backend.name
        self.bridge = backend.bridge  # IPv4 address, dotted
        self.weight = backend.weight
        self.pending = 0
        self.given = 0
        self.up = True
        self.reason = ""
        self.draining = False
        self.starting: float | None = None
        self.share = WHOLE  # of its weight, in 64ths: less during a slow start
        self.books: Policy | None = None  # what wants to know of its flows
        self.settle()

    def settle(self) -> None:
        """What follows from the rest, kept for the packets' way."""
        self.taking = self.up and not self.draining and self.weight > 0
        self.full = self.taking and self.share == WHOLE
        self.effective = self.weight * self.share

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.bridge}>"
