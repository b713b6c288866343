"""A balancer's clock that is not the bridge's: refused, and said so with the difference."""

from __future__ import annotations

import re

import pytest

from tests.unit.bridge_stage import Connection, Stage


@pytest.mark.parametrize("difference", [-86400, -3600, -30, 30, 3600, 86400])
@pytest.mark.parametrize("waited", [0, 5, 90])
def test_the_difference_is_named(difference: float, waited: float) -> None:
    """``waited`` are the seconds from the SYN-ACK to the handoff."""
    stage = Stage()
    connection = Connection(stage)
    theirs = stage.wall + difference
    connection.echo = int((theirs - waited) * 1000) % 2**32
    connection.handoff(option={"wall": theirs})
    assert not stage.sent()
    assert stage.count("old_handoff_epoch") == 1
    ((kind, text),) = stage.core.ledger.warnings
    assert kind == "handoffs of another time"
    said = re.search(r"about (\d+) s (ahead of|behind)", text)
    assert said is not None
    assert int(said[1]) == pytest.approx(abs(difference), abs=8)
    assert said[2] == ("ahead of" if difference > 0 else "behind")


def test_a_clock_that_is_set_right_is_believed_again() -> None:
    stage = Stage()
    stage.core.timers(stage.now, stage.wall - stage.now - 3600)
    connection = Connection(stage)
    connection.echo = int(stage.wall * 1000) % 2**32
    connection.handoff()
    assert stage.count("old_handoff_epoch") == 1
    stage.core.timers(stage.now, stage.wall - stage.now)
    connection.handoff()
    assert stage.reply()["flags"] == "S"


@pytest.mark.parametrize("stamps", [False, True])
def test_a_forged_handoff_is_none_of_another_time(stamps: bool) -> None:
    stage = Stage()
    connection = Connection(stage, stamps=stamps)
    connection.echo = int((stage.wall - 3600) * 1000) % 2**32
    connection.handoff(option={"wall": stage.wall - 3600, "shared": bytes(32)})
    assert stage.count("bad_handoff_mac") == 1
    ((kind, _),) = stage.core.ledger.warnings
    assert kind == "handoffs with a wrong MAC"


def test_an_echo_of_nonsense_is_no_error() -> None:
    for echo in (0, 1, 2**31, 2**32 - 1):
        stage = Stage()
        connection = Connection(stage)
        connection.echo = echo
        connection.handoff(option={"shared": bytes(32)})
        assert stage.count("bad_handoff_mac") == 1
