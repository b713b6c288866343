"""What the packet loop does besides packets: signals, descriptors, work in parts, one a turn."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from balancer.core.engine import Balancer
from common.program import loop as looping
from common.program.loop import TURN, PacketLoop
from tests.unit.balancer_stage import REQUEST, Client, Stage

pytestmark = pytest.mark.root  # raw sockets


class Queue:
    """A queue that is never empty: one packet, again and again."""

    packet = b""
    judged = 0

    def __init__(self, *_: int) -> None:
        self._reading, self._writing = os.pipe()
        os.write(self._writing, b"x")

    def fileno(self) -> int:
        return self._reading

    def take(self, most: int) -> Iterator[tuple[None, bytes, int]]:
        for _ in range(most):
            Queue.judged += 1
            yield None, self.packet, 0

    def give(self, packet: None, data: bytes, verdict: bytes | None) -> None:
        pass

    def lost(self) -> int:
        return 0

    def waiting(self) -> int:
        return 5

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[PacketLoop]:
    """A loop under full load: each packet is steered."""
    monkeypatch.setattr(looping, "PacketQueue", Queue)
    stage = Stage()
    client = Client(stage).connect()
    client.send(REQUEST)
    stage.sent()
    monkeypatch.setattr(Queue, "packet", client.segment(acked=100))
    monkeypatch.setattr(Queue, "judged", 0)
    with running(stage.core) as made:
        yield made


@contextmanager
def running(core: Balancer) -> Iterator[PacketLoop]:
    """A loop, and everything as it was before."""
    before = {number: signal.getsignal(number) for number in range(1, 16) if number not in (9,)}
    made = PacketLoop(core, 1, lambda: [])
    try:
        yield made
    finally:
        made.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        gc.enable()
        gc.unfreeze()


def test_work_is_done_one_part_in_a_turn_however_full_the_queue_is(loop: PacketLoop) -> None:
    parts: list[int] = []

    def part(now: float) -> None:
        parts.append(Queue.judged)
        if len(parts) == 10:
            loop.stop()
        loop.watch.at(now, part)

    loop.watch.at(0.0, part)
    loop.watch.at(0.0, part)
    loop.run()
    assert parts[:10] == [TURN * turn for turn in range(1, 11)], "one turn of packets between two"


def test_signals_reopen_and_reload(
    loop: PacketLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heeded: list[str] = []
    loop.reopen = lambda: heeded.append("reopened")
    loop.reload = lambda: heeded.append("reloaded")
    monkeypatch.setattr(loop.core, "rekey", lambda held, now: "keys")
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)
    loop.run()
    assert heeded == ["reopened", "reloaded"]
    assert "at the next start" not in caplog.text


def test_an_error_besides_packets_is_counted_and_ends_nothing(loop: PacketLoop) -> None:
    def fail(_now: float) -> None:
        raise ZeroDivisionError

    loop.watch.at(0.0, fail)
    loop.watch.at(0.0, lambda _: loop.stop())
    loop.run()
    assert loop.counts()["timer_error"] == 1  # type: ignore[index]


def test_an_error_beforehand_is_counted_and_the_packet_goes_on(
    loop: PacketLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes | None] = []

    def fail() -> None:
        raise ZeroDivisionError

    def packet(data: bytes, now: float, mark: int) -> bytes | None:
        if Queue.judged == 1:
            loop.core.beforehand.append(fail)
        return data

    monkeypatch.setattr(Queue, "give", lambda queue, taken, data, verdict: given.append(verdict))
    loop.observe(packet, None)
    loop.watch.at(0.0, lambda _: loop.stop())
    loop.run()
    assert loop.counts()["timer_error"] == 1  # type: ignore[index]
    assert given[:TURN] == [Queue.packet] * TURN


def test_timers_that_are_due_again_have_some_of_a_turn_and_no_more(
    loop: PacketLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done in parts, one at a time, does not take as many turns as it has parts."""
    parts: list[int] = []

    def part(_now: float) -> bool:
        parts.append(Queue.judged)
        return True

    loop.core._chores.add(part)  # type: ignore[attr-defined]
    loop.watch.at(0.0, lambda now: loop.watch.at(now, lambda _: loop.stop()))
    begun = time.monotonic()
    loop.run()
    turns = len(set(parts))
    assert turns > 1
    assert len(parts) > 4 * turns
    assert time.monotonic() - begun < 1


def test_who_observes_sees_packets_until_it_leaves(loop: PacketLoop) -> None:
    seen: list[int] = []
    judge = loop.core.packet

    def packet(data: bytes, now: float, mark: int) -> bytes | None:
        seen.append(Queue.judged)
        return judge(data, now, mark)

    loop.observe(packet, lambda out: None)
    loop.watch.at(0.0, lambda _: loop.observe(None, None))
    loop.watch.at(0.0, lambda _: loop.stop())
    loop.run()
    assert seen == list(range(1, TURN + 1)), "those of one turn"
    assert loop.waiting() == {"queue": 5}
    assert loop.counts()["packets"] == Queue.judged >= 2 * TURN  # type: ignore[index]


def test_a_turns_packets_are_all_judged_and_then_go_on_in_their_order(
    loop: PacketLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes of a packet goes out before it, and after what came of those before; what is to be
    done before both is not done sooner."""
    steps: list[object] = []

    def packet(data: bytes, now: float, mark: int) -> bytes | None:
        steps.append("judged")
        if Queue.judged % 2:
            beforehand = f"before {Queue.judged}"
            loop.core.beforehand.append(lambda: steps.append(beforehand))
            loop.core.out += [(7, b"%d, first" % Queue.judged), (8, b"%d, second" % Queue.judged)]
        return b"%d" % Queue.judged

    monkeypatch.setattr(loop._sender._raw, "send", lambda mark, sent: steps.append((mark, sent)))
    monkeypatch.setattr(Queue, "give", lambda queue, taken, data, verdict: steps.append(verdict))
    loop.observe(packet, None)
    loop.watch.at(0.0, lambda _: loop.stop())
    loop.run()
    expected: list[object] = ["judged"] * TURN
    for number in range(1, TURN + 1):
        if number % 2:
            expected.append(f"before {number}")
            expected += [(7, b"%d, first" % number), (8, b"%d, second" % number)]
        expected.append(b"%d" % number)
    assert steps[: len(expected)] == expected


class Idle(Queue):
    """One that nothing comes from."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        os.read(self._reading, 1)


@pytest.mark.parametrize("by", ["descriptor", "call"])
def test_what_the_core_is_told_besides_packets_it_does_at_once(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Not when the loop would have looked after it anyway, up to a second later."""
    monkeypatch.setattr(looping, "PacketQueue", Idle)
    core = Stage().core
    begun, done = 0.0, 0.0

    def chore(_now: float) -> bool:
        nonlocal done
        done = time.monotonic()
        loop.stop()
        return False

    def tell(_: object) -> None:
        nonlocal begun
        begun = time.monotonic()
        core._chores.add(chore)

    def once(events: int) -> None:
        loop.watch.remove(readable.fileno())
        tell(events)

    readable, other = socket.socketpair()
    with running(core) as loop, readable, other:
        if by == "descriptor":
            loop.watch.at(time.monotonic() + 0.05, lambda _: other.sendall(b"x"))
            loop.watch.add(readable.fileno(), select.POLLIN, once)
        else:
            loop.watch.at(time.monotonic() + 0.05, tell)
        loop.run()
    assert done - begun < 0.3
