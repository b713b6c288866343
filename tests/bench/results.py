"""From measurements to figures: medians, spreads, and ratios within each round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tests.bench.cases import Case, Traffic
from tests.bench.contestants import DIRECT, OURS
from tests.bench.meters import Cost

HAPROXY = "HAProxy"


@dataclass(frozen=True)
class Round:
    """One measurement. ``failed`` are requests; one that failed counts for nothing else."""

    traffic: Traffic
    cost: Cost


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds, of one contestant in one case.

    Rates are in the case's unit; ratios are taken within each round. ``carried`` is the balancer's
    share of the bytes that were asked for or sent, None where the work is counted in requests.
    Processor seconds are of one round."""

    rate: float
    least: float
    most: float
    to_direct: float
    to_haproxy: float
    failed: int
    latency: dict[str, float]
    machine: float
    balancer: float
    carried: float | None
    carried_bytes: float
    requests: list[int]


class Results:
    """All rounds, by case and contestant."""

    def __init__(self) -> None:
        self._rounds: dict[str, dict[str, list[Round]]] = defaultdict(lambda: defaultdict(list))

    def add(self, case: Case, contestant: str, measured: Round) -> None:
        self._rounds[case.name][contestant].append(measured)

    def figures(self, case: Case) -> dict[str, Figures]:
        """By contestant, in the order in which they were measured."""
        rounds = self._rounds[case.name]
        rates = {name: [r.traffic.rate / case.per for r in found] for name, found in rounds.items()}
        return {
            name: Figures(
                rate=statistics.median(rates[name]),
                least=min(rates[name]),
                most=max(rates[name]),
                to_direct=_ratio(rates[name], rates[DIRECT]),
                to_haproxy=_ratio(rates[name], rates[HAPROXY]),
                failed=sum(r.traffic.failed for r in found),
                latency=_medians([r.traffic.latency for r in found]),
                machine=statistics.median(r.cost.machine for r in found),
                balancer=statistics.median(r.cost.balancer for r in found),
                carried=_share(found) if case.per > 1 else None,
                carried_bytes=statistics.median(r.cost.carried for r in found),
                requests=[sum(n) for n in zip(*(r.cost.requests for r in found), strict=True)],
            )
            for name, found in rounds.items()
        }

    def as_json(self, cases: Iterable[Case]) -> list[dict[str, object]]:
        return [
            {
                "case": case.name,
                "title": case.title,
                "unit": case.unit,
                "figures": {name: asdict(found) for name, found in self.figures(case).items()},
                "rounds": {
                    name: [asdict(measured) for measured in found]
                    for name, found in self._rounds[case.name].items()
                },
            }
            for case in cases
        ]


def _ratio(rates: list[float], to: list[float]) -> float:
    """Of the rounds that both were in, the first ones."""
    return statistics.median(one / other for one, other in zip(rates, to, strict=False))


def _medians(latencies: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in latencies) for name in latencies[0]}


def _share(rounds: list[Round]) -> float:
    return statistics.median(r.cost.carried / r.traffic.work for r in rounds)


@dataclass(frozen=True)
class Goal:
    """What our kernel path is held to in a case; a ratio that is None is only reported."""

    case: str
    to_direct: float | None = None
    to_haproxy: float | None = None
    carried: float | None = None

    def misses(self, figures: Figures) -> list[str]:
        found = []
        if self.to_direct is not None and figures.to_direct < self.to_direct:
            found.append(f"{figures.to_direct:.2f} of direct, not {self.to_direct}")
        if self.to_haproxy is not None and figures.to_haproxy < self.to_haproxy:
            found.append(f"{figures.to_haproxy:.2f} of HAProxy, not {self.to_haproxy}")
        if self.carried is not None and (figures.carried or 0) > self.carried:
            found.append(f"{figures.carried:.2%} through the balancer, not {self.carried:.2%}")
        return found


GOALS = (
    Goal("download", to_direct=0.85, to_haproxy=3, carried=0.005),
    Goal("keepalive32", to_direct=0.85, to_haproxy=1.4),
    Goal("upload", to_direct=0.8, to_haproxy=1.5),
    Goal("connections", to_haproxy=0.3),
)


def missed(results: Results, cases: Iterable[Case]) -> list[str]:
    """A line for each goal that was not reached, and for each case in which requests failed."""
    goals = {goal.case: goal for goal in GOALS}
    found = []
    for case in cases:
        figures = results.figures(case)
        if goal := goals.get(case.name):
            found += [f"{case.title}: {miss}" for miss in goal.misses(figures[OURS])]
        found += [
            f"{case.title}: {name}: {one.failed} requests failed"
            for name, one in figures.items()
            if one.failed
        ]
    return found
