"""`trace`: what is noted of a client's packets, that nothing else is, and that all is as before at
its end."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from balancer.program.control.flows import Flows
from common.adapters.control.server import CommandError, Later
from common.program.control import tracing
from common.program.control.trace_text import Traced
from common.program.control.tracing import Tracing
from tests.unit.balancer_stage import REQUEST, Client, Stage


class Loop:
    """What tracing needs of a packet loop, over a stage's core."""

    offset = 1000.0

    def __init__(self, stage: Stage) -> None:
        self.stage, self.core = stage, stage.core
        self.packet, self.sent = self.core.packet, None

    def observe(self, packet: Any, sent: Any) -> None:
        self.packet = self.core.packet if packet is None else packet
        self.sent = sent

    def send(self) -> None:
        if self.sent is not None:
            self.sent(self.core.out)
        self.core.out.clear()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def loop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop(stage)

    def packet(data: bytes) -> bytes | None:
        return made.packet(data, stage.now, 0)

    monkeypatch.setattr(stage, "packet", packet)
    return made


def begun(loop: Loop, flow: str, **bounds: Any) -> Any:
    """A trace under way."""
    pages = Tracing(loop, Flows(loop.core)).commands()["trace"].run({"flow": flow, **bounds})  # type: ignore[arg-type]
    while not isinstance(next(pages), Later):
        pass
    return pages


def notes(pages: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not isinstance(page := next(pages), Later):
        found += page
    return found


def test_each_packet_of_the_client_has_its_verdict_and_reason(stage: Stage, loop: Loop) -> None:
    pages = begun(loop, "198.51.100.7")
    client = Client(stage).connect()
    verdict = client.send(REQUEST)
    assert verdict is not None
    client.send(b"x", at=-5)
    Client(stage, ("198.51.100.8", 1)).connect().send(REQUEST)  # another
    syn, ack, request, late = notes(pages)
    assert (syn["verdict"], syn["reasons"], len(syn["sent"])) == ("drop", ["syn"], 1)
    assert ack["verdict"] == "drop"
    assert {"connections", "bare_ack"} <= set(ack["reasons"])
    assert b64decode(request["verdict"]) == verdict
    assert {"handoffs", "steered"} <= set(request["reasons"])
    assert any("GET /a" in why and "-> b" in why for why in request["why"])
    assert late["reasons"] == ["steered"]
    assert not stage.core.ledger.events, "nothing more for the log"
    traced = Traced()
    text = "\n".join(line for note in (syn, ack, request, late) for line in traced.lines(note))
    for words in ("in    198.51.100.7:40000", "sent  192.0.2.10:80", "HANDOFF", "why   syn"):
        assert words in text
    assert "seq=1 (" in text, "counted from the beginning"


def test_what_is_sent_without_a_packet_is_shown_too(stage: Stage, loop: Loop) -> None:
    pages = begun(loop, "198.51.100.7:40000")
    Client(stage).connect().send(REQUEST[:10])
    loop.send()
    notes(pages)
    stage.at(0.2)  # what was read is acknowledged
    loop.send()
    (note,) = notes(pages)
    assert note.keys() == {"time", "sent"}
    assert "without a packet" in "\n".join(Traced().lines(note))


def test_the_end_leaves_all_as_it_was(stage: Stage, loop: Loop) -> None:
    pages = begun(loop, "198.51.100.7", count=1)
    assert loop.packet != stage.core.packet
    Client(stage).connect()
    while True:
        try:
            next(pages)
        except StopIteration as done:
            assert done.value["packets"] == 1
            break
    assert (loop.packet, loop.sent) == (stage.core.packet, None)
    pages = begun(loop, "198.51.100.7")
    pages.close()
    assert (loop.packet, loop.sent) == (stage.core.packet, None)


def test_a_flow_is_found_by_its_id(stage: Stage, loop: Loop) -> None:
    client = Client(stage).connect()
    client.send(REQUEST)
    (flow,) = stage.core.table.handed.values()
    pages = begun(loop, Flows(stage.core).identity(flow))
    client.send()
    assert len(notes(pages)) == 1
    with pytest.raises(CommandError, match="there is no flow 0000000000000000"):
        begun(Loop(stage), "0" * 16)


def test_what_is_not_taken_in_time_is_counted(
    stage: Stage, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "RING", 3)
    pages = begun(loop, "198.51.100.7")
    client = Client(stage).connect()
    for _ in range(8):
        client.send()
    found = notes(pages)
    assert len(found) == 3
    assert found[-1]["missed"] == 7
    assert "and 7 more that came faster" in "\n".join(Traced().lines(found[-1]))


def test_an_error_of_ours_is_noted_and_goes_on_its_way(
    stage: Stage, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.core, "packet", fail)
    pages = begun(loop, "198.51.100.7")
    with pytest.raises(ZeroDivisionError):
        Client(stage).syn()
    (note,) = notes(pages)
    assert (note["verdict"], note["reasons"]) == ("drop", ["internal_error"])
    assert not stage.core.ledger.verbose
