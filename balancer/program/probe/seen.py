"""What a probe has seen: its own connection, and what the hosts on the way have told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.adapters.http_exchange import Failure, Request

Answer = Mapping[str, Any]
NOTHING: Answer = {}


@dataclass(frozen=True, slots=True)
class Told:
    """What the endpoint ``at`` ADDRESS:PORT answered at /flow, before and after; ``trouble`` says
    why it did not. ``ahead``: seconds of its host's clock before this one's."""

    at: str
    before: Answer = field(default_factory=dict)
    after: Answer = field(default_factory=dict)
    ahead: float = 0.0
    trouble: str = ""

    @property
    def address(self) -> str:
        return self.at.partition(":")[0]

    @property
    def flow(self) -> Answer | None:
        """The probe's connection; None: it is not known there."""
        found: Answer | None = self.after.get("flow")
        return found

    @property
    def signs(self) -> Signs:
        return Signs(self.before.get("host", NOTHING), self.after.get("host", NOTHING))

    def grown(self, names: Iterable[str]) -> int:
        """By how much the program's counters of these names have grown."""
        return sum(self.by(name) for name in names)

    def by(self, name: str) -> int:
        before = self.before.get("counters", NOTHING)
        return int(self.after.get("counters", NOTHING).get(name, 0)) - int(before.get(name, 0))

    def drops(self, known: Iterable[str]) -> str:
        """Which of these counters have grown, in words; '' for none."""
        return ", ".join(f"{name} +{count}" for name in known if (count := self.by(name)) > 0)


@dataclass(frozen=True, slots=True)
class Signs:
    """A host's common.adapters.host_signs, as JSON has them, before and after."""

    before: Answer
    after: Answer

    def by(self, name: str) -> int:
        was, now = (each.get("counters", NOTHING) for each in (self.before, self.after))
        return int(now.get(name, 0)) - int(was.get(name, 0))

    @property
    def strict(self) -> list[str]:
        return list(self.after.get("strict", ()))

    @property
    def forwards(self) -> bool:
        return bool(self.after.get("forwards", True))

    def no_route(self, address: str) -> str:
        return str(self.after.get("no_route", NOTHING).get(address, ""))


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything. ``unread``: the connection is of those that nobody reads, and nothing was asked;
    ``heard`` is what its server said first. ``again`` is the second request on the connection, None
    where there was none; ``bridges`` are those that were asked, by address."""

    vip: str
    port: int
    client: str  # ADDRESS:PORT
    handshake: float | None
    failure: Failure | None  # of the handshake
    words: str
    request: Request | None
    again: Request | None
    own: Signs
    balancer: Told
    bridges: Mapping[str, Told]
    unread: bool = False
    heard: Request | None = None

    @property
    def source(self) -> str:
        return self.client.partition(":")[0]

    @property
    def handed_to(self) -> Told | None:
        """The bridge that the balancer says has the connection, as far as it was asked."""
        flow = self.balancer.flow
        return None if flow is None else self.bridges.get(str(flow["bridge"]))

    def name_of(self, bridge: str) -> str:
        """The backend's name, by its bridge."""
        for backend in self.backends:
            if backend["bridge"] == bridge:
                return str(backend["name"])
        return bridge

    @property
    def backends(self) -> list[Answer]:
        """Of the service, as far as the balancer has told."""
        service = self.balancer.after.get("service") or self.balancer.before.get("service")
        return list((service or NOTHING).get("backends", ()))
