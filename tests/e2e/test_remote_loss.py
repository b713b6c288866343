"""A bad network between the bridge and a server on another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.e2e import work
from tests.e2e.lab import SERVER1, SERVER2, Lab
from tests.e2e.network import REMOTE_LEGS, loss, misbehaving
from tests.e2e.wire import Faults
from tests.soak import Amount

pytestmark = pytest.mark.root

PROBABILITY = 0.05
LATE = 0.004


@pytest.fixture(scope="module")
def paths(running_lab: Lab) -> list[str]:
    """Dots before a path that make it lead to the first bridge: of a download, an upload and a
    short request."""
    names = ("trouble", "upload/trouble", "1k")
    with work.some(1 << 20, 0):
        return [running_lab.path_for(name, "backend1") for name in names]


@pytest.fixture(scope="module", autouse=True)
def remote(running_lab: Lab, paths: list[str]) -> Iterator[None]:
    """The first bridge has the second one's server, which sees the bridge's address."""

    def change(text: str) -> str:
        elsewhere = text.replace(f'"{SERVER1}:80"', f'"{SERVER2}:80"')
        return elsewhere.replace('source = "client"', 'source = "bridge"')

    with running_lab.configured(backend1=change):
        yield


@pytest.fixture
def some(paths: list[str], amount: Amount) -> Iterator[work.Work]:
    down, up, short = paths
    with work.some(amount(2 << 20, 50 << 20), amount(240, 500)) as some:
        yield replace(some, path=down, upload=up, short=short)


@pytest.mark.parametrize("leg", REMOTE_LEGS)
def test_loss(lab: Lab, some: work.Work, leg: str, report: Callable[[str], None]) -> None:
    with loss(lab, PROBABILITY, leg) as lossy:
        done = work.do(lab, some, timeout=120)
        dropped = lossy.dropped()[leg]
    report(f"lost: {leg} {dropped}; {done}")
    assert dropped.packets >= some.requests * PROBABILITY


@pytest.mark.parametrize("leg", REMOTE_LEGS)
def test_disorder(lab: Lab, some: work.Work, leg: str, report: Callable[[str], None]) -> None:
    faults = Faults(hold=PROBABILITY, double=PROBABILITY, late=LATE)
    with misbehaving(lab, leg, faults) as deeds:
        done = work.do(lab, some, timeout=120)
    report(f"{leg}: {deeds}; {done}")
    assert deeds["overtaken"].packets >= some.requests * PROBABILITY / 5
    assert deeds["doubled"].packets >= some.requests * PROBABILITY
