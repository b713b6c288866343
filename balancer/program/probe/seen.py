"""What a probe has seen: its own connection, and what the hosts on the way have told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from balancer.program.probe.attempt import Attempt
from balancer.program.probe.wanted import UDP, Wanted

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
    """Everything. ``bridges`` are those that were asked, by address."""

    wanted: Wanted
    made: Attempt
    own: Signs
    balancer: Told
    bridges: Mapping[str, Told]

    @property
    def service(self) -> Answer | None:
        """As the balancer has told of it; None: there is none, or it has told nothing."""
        found: Answer | None = self.balancer.after.get("service")
        return found or self.balancer.before.get("service")

    @property
    def inspect(self) -> str:
        """What the balancer reads of the service's connections, where it has told."""
        return str((self.service or NOTHING).get("inspect", "http"))

    @property
    def carries(self) -> str:
        """What a bridge gets first of a connection, or of a client."""
        if self.wanted.scheme == UDP:
            return "datagram"
        return "SYN" if self.inspect == "none" else "handoff"

    @property
    def dscp(self) -> int | None:
        found: int | None = (self.service or NOTHING).get("dscp")
        return found

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
        return list((self.service or NOTHING).get("backends", ()))
