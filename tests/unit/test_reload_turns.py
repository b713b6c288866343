"""Changes of rules that must not overlap, and a reload whose building fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from balancer.core.choice.pool import Pool
from common.program.reload import Turns
from tests.unit.balancer_stage import Stage


def test_each_begins_when_the_one_before_is_over() -> None:
    turns, begun, over = Turns(), [], []  # type: ignore[var-annotated]

    def change(name: str) -> Callable[[Callable[[], None]], None]:
        def begin(done: Callable[[], None]) -> None:
            begun.append(name)
            over.append(done)

        return begin

    for name in "abc":
        turns.take(change(name))
    assert begun == ["a"]
    over[0]()
    assert begun == ["a", "b"]
    over[1]()
    over[2]()
    assert begun == ["a", "b", "c"]
    turns.take(lambda done: done())
    turns.take(change("d"))
    assert begun[-1] == "d"


def test_an_error_of_ours_is_told_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    before, told = stage.core.pools, []  # type: ignore[var-annotated]
    (service,) = stage.core.services
    assert service.pools

    def fails(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(Pool, "reconfigured", fails)
    stage.core.reconfigure(stage.whole, stage.paths, stage.now, told.append)
    with pytest.raises(RuntimeError, match="on purpose"):
        stage.at(0.1)
    assert told == ["internal error: RuntimeError('on purpose')"]
    assert stage.core.pools is before
    monkeypatch.undo()
    stage.core.reconfigure(stage.whole, stage.paths, stage.now, told.append)
    stage.at(0.2)
    assert told[1:] == [""]
