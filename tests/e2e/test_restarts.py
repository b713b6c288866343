"""A program is killed, or restarted, while it is busy: whom that harms, for how long, and how."""

from __future__ import annotations

import functools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import ongoing, steady, web
from tests.e2e.lab import LAB, SERVER1, VIP, Lab, running, until
from tests.e2e.ongoing import CLOSED, RESET, WENT_ON, Ongoing
from tests.e2e.scripted import PORT, head_of, scripted_service, serving
from tests.soak import Amount

pytestmark = pytest.mark.root

BACKENDS = ("backend1", "backend2")
SECONDS_TO_LEARN = 15  # that a connection may take, from the restart on, to go on or to end
SECONDS_TO_WORK = 1  # until a new one does
CPU_TO_START = 1.0  # seconds of processor time until a program is ready


@pytest.fixture(scope="module")
def paths(running_lab: Lab) -> dict[tuple[str, str], str]:
    """A path for each file and backend."""
    files = ("1k", "20m", "upload/ongoing")
    return {(name, to): running_lab.path_for(name, to) for name in files for to in BACKENDS}


@pytest.fixture(scope="module")
def half_closing(running_lab: Lab) -> Iterator[None]:
    """A server that answers without end to clients that have ended their side."""

    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            assert tcp.recv(1) == b""
            while True:
                tcp.sendall(bytes(10_000))
                time.sleep(0.02)

    with scripted_service(running_lab), serving(running_lab, serve):
        yield


@dataclass(frozen=True)
class Outage:
    """Monotonic times of a program's end and of its being ready again."""

    began: float
    over: float


def processes(lab: Lab, program: str) -> list[int]:
    """A program's process and, of a server, those that it started."""
    first = lab.pid(program)
    return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]


def killed(lab: Lab, program: str) -> Outage:
    """Kill a program, and start it again at once."""
    pids = processes(lab, program)
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(running, pids)), 5, f"{program} is gone")
    lab.script("restart", program)
    return Outage(began, time.monotonic())


def restarted(lab: Lab, program: str) -> Outage:
    began = time.monotonic()
    lab.script("restart", program)
    return Outage(began, time.monotonic())


def reloaded(lab: Lab, program: str) -> Outage:
    """nginx's own way: old processes finish what they have, new ones take what comes."""
    before = processes(lab, program)
    began = time.monotonic()
    os.kill(before[0], signal.SIGHUP)
    until(lambda: not any(map(running, before[1:])), 10, "the old process is gone")
    return Outage(began, time.monotonic())


def slowest_answer(lab: Lab, paths: dict[tuple[str, str], str]) -> float:
    """Seconds until new connections by way of each backend are answered, one after the other."""
    began = time.monotonic()
    for backend in BACKENDS:
        with lab.connect() as tcp:
            tcp.sendall(web.request(paths["1k", backend]))
            assert web.response(tcp).status == 200
    return time.monotonic() - began


def holds(lab: Lab, program: str, flow: Ongoing) -> bool:
    """Whether a connection is one of the program's, and ends with it; what is half-closed here is
    not nginx's."""
    if program.startswith("nginx") and flow.kind == "half-closed":
        return False
    if lab.in_kernel and program in ("balancer", *BACKENDS):
        return False
    return program == "balancer" or program.removeprefix("nginx-") == flow.backend


# How a program's connections end once it is killed; a server's are ended by its kernel.
FATES = {"balancer": {RESET}, "backend1": {RESET}, "nginx-backend1": {RESET, CLOSED}}


@pytest.mark.parametrize("program", FATES)
def test_a_program_is_killed(
    lab: Lab,
    half_closing: None,
    paths: dict[tuple[str, str], str],
    program: str,
    amount: Amount,
    report: Callable[[str], None],
) -> None:
    """Under 32 downloads and others: those that the program held end by RST (or, of a server, as it
    ended them) within 15 seconds of its restart, for the server too; all others go on, among them
    all that the kernel has."""
    chance = random.Random(3)
    for turn in range(rounds := amount(1, 15)):
        ask_again = threading.Event()
        with ongoing.going_on() as flows:
            for backend in BACKENDS:
                large, small, put = (paths[f, backend] for f in ("20m", "1k", "upload/ongoing"))
                flows += [ongoing.download(lab, backend, large) for _ in range(12)]
                flows += [ongoing.slow_download(lab, backend, large) for _ in range(4)]
                flows += [ongoing.upload(lab, backend, put) for _ in range(2)]
                flows += [ongoing.idle(lab, backend, small, ask_again) for _ in range(2)]
            flows += [ongoing.half_closed(lab, "backend1", (VIP, PORT)) for _ in range(2)]
            ongoing.all_moving(flows)
            time.sleep(chance.uniform(0, amount(0, 3)))
            usual = slowest_answer(lab, paths)
            outage = killed(lab, program)
            works = slowest_answer(lab, paths)
            answered = {flow: flow.moved for flow in flows if flow.kind == "idle"}
            ask_again.set()
            said = judge(lab, program, flows, outage)
            until(lambda: idle_ones_answered(answered), 5, "what was idle is used again")  # noqa: B023
        assert works < SECONDS_TO_WORK + usual  # which is little on a machine that is not busy
        away = outage.over - outage.began
        report(f"away {away:.2f} s, answers {works:.3f} s after that, {usual:.3f} s before; {said}")
        amount.progress(turn + 1, rounds)


def idle_ones_answered(before: dict[Ongoing, int]) -> bool:
    return all(flow.fate != WENT_ON or flow.moved > size for flow, size in before.items())


def judge(lab: Lab, program: str, flows: list[Ongoing], outage: Outage) -> str:
    """Hold the connections to what docs/faults.md says; gives what is to be reported of them."""
    harmed = [flow for flow in flows if holds(lab, program, flow)]
    spared = [flow for flow in flows if flow not in harmed]
    deadline = outage.over + SECONDS_TO_LEARN

    def within(condition: Callable[[], bool], what: str) -> None:
        until(condition, max(deadline - time.monotonic(), 0), what)

    within(lambda: all(flow.fate != WENT_ON for flow in harmed), f"{program}'s clients learn of it")
    assert {str(flow) for flow in harmed if flow.fate not in FATES[program]} == set()
    ongoing.all_moving([flow for flow in spared if flow.kind != "idle"])
    assert {str(flow) for flow in spared if flow.fate != WENT_ON} == set()
    if program != "nginx-backend1":  # whose kernel keeps an end until the client has ended too
        for flow in harmed:
            # an earlier connection from the same port may be in TIME-WAIT
            states = functools.partial(lab.states, flow.backend, flow.port)
            told = f"the server learns of it: {flow}"
            within(lambda: set(states()) <= {"TIME-WAIT"}, told)  # noqa: B023
    if not harmed:
        return f"{ongoing.fates(spared)}"
    last = max(harmed, key=lambda flow: flow.fate_at)
    return (
        f"{ongoing.fates(harmed)}; the last, {last.kind}, {last.fate_at - outage.over:.2f} s after "
        f"it; {len(spared)} others went on"
    )


@pytest.mark.parametrize(
    ("how", "program"),
    [
        (killed, "balancer"),
        (killed, "backend1"),
        (killed, "nginx-backend1"),
        (restarted, "nginx-backend1"),
        (reloaded, "nginx-backend1"),
    ],
)
def test_requests_meanwhile(
    lab: Lab,
    paths: dict[tuple[str, str], str],
    how: Callable[[Lab, str], Outage],
    program: str,
    amount: Amount,
    report: Callable[[str], None],
) -> None:
    """Short requests all the time. Those of another backend never notice, those after the outage
    are all good, and those in it are answered, late, or reset: none hangs, none is executed twice
    but where a bridge was killed."""
    chance = random.Random(5)
    short = {backend: paths["1k", backend] for backend in BACKENDS}
    logs = {backend: access_log_end(backend) for backend in BACKENDS}
    outages: list[Outage] = []
    direct = {"backend1": "/1k"} if program.startswith("nginx") else {}
    with (
        steady.asking(lab, short) as asking,
        steady.asking(lab, short) as more,
        steady.asking(lab, direct, "client2", SERVER1) as directly,
    ):
        for turn in range(rounds := amount(1, 20)):
            time.sleep(chance.uniform(0.3, 1))
            outages.append(how(lab, program))
            time.sleep(0.5)
            amount.progress(turn + 1, rounds)
    every, beside = asking.asked + more.asked, directly.asked
    failed = [one for one in every if one.outcome != steady.GOOD]
    allowed = {steady.RESET, steady.CUT} if direct else {steady.RESET}
    for one in failed:
        assert any(one.overlaps(outage.began, outage.over) for outage in outages), one
        assert program == "balancer" or one.backend == program.removeprefix("nginx-"), one
        assert one.outcome in allowed, one
    if how is reloaded:
        assert [one for one in beside if one.outcome != steady.GOOD] == failed == []
    twice = executed_twice(logs)
    if program != "backend1":
        assert twice == 0
    slowest = max(every, key=lambda one: one.seconds).seconds
    assert slowest < SECONDS_TO_LEARN
    report(
        f"{len(outages)} times; {steady.outcomes(every)}; the slowest {slowest:.2f} s; {twice} "
        "executed twice" + (f"; direct ones: {steady.outcomes(beside)}" if direct else "")
    )


def access_log(backend: str) -> Path:
    return LAB / "log" / f"nginx-{backend}.access.log"


def access_log_end(backend: str) -> int:
    return access_log(backend).stat().st_size


def executed_twice(since: dict[str, int]) -> int:
    """How many requests, known by their User-Agent, stand more than once in the servers' logs."""
    names: list[bytes] = []
    for backend, position in since.items():
        with access_log(backend).open("rb") as log:
            log.seek(position)
            names += [line.split(b'"')[5] for line in log]
    mine = [name for name in names if name.startswith(b"client-")]
    return len(mine) - len(set(mine))


def test_a_program_starts_quickly(lab: Lab, report: Callable[[str], None]) -> None:
    """In processor time: how long that takes is the machine's affair."""
    tick = os.sysconf("SC_CLK_TCK")
    for program in ("balancer", "backend1"):
        outage = restarted(lab, program)
        stat = Path(f"/proc/{lab.pid(program)}/stat").read_text().rpartition(")")[2].split()
        used = sum(map(int, stat[11:15])) / tick  # its own and its children's, user and system
        report(f"{program}: {used:.2f} s of processor time, {outage.over - outage.began:.2f} s")
        assert used < CPU_TO_START
