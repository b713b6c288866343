"""What clients see when a program stops, and what is said when one is missing."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

import pytest

from tests.e2e import web
from tests.e2e.lab import Lab, until

pytestmark = pytest.mark.root

WAIT = 5  # seconds; "at once" is a small part of it


def _downloading(lab: Lab) -> tuple[socket.socket, str]:
    """A download that is going on, and the program of the bridge that it goes through."""
    tcp = lab.connect()
    tcp.sendall(web.request("/100m"))
    assert tcp.recv(1000)
    return tcp, lab.curl("/100m", "-I").backend


def _ends(tcp: socket.socket) -> float:
    """Seconds until the connection is reset; it must not just end."""
    started = time.monotonic()
    tcp.settimeout(WAIT)
    with pytest.raises(ConnectionResetError):
        while tcp.recv(1 << 16):
            pass
        raise AssertionError("the connection ended as if all were well")
    return time.monotonic() - started


def _ends_or_goes_on(lab: Lab, tcp: socket.socket, seconds: float) -> None:
    """It is reset within so many seconds, or, where the kernel has it, arrives whole."""
    if not lab.in_kernel:
        assert _ends(tcp) < seconds
        return
    missing = (100 << 20) - 1000
    while missing > 0 and (part := tcp.recv(1 << 20)):
        missing -= len(part)
    assert missing <= 0, "it has ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_bridge_that_stops_ends_its_connections(lab: Lab, number: int) -> None:
    tcp, bridge = _downloading(lab)
    port = tcp.getsockname()[1]
    pid = lab.pid(bridge)
    os.kill(pid, number)
    until(lambda: not lab.alive(bridge), WAIT, "it stops")
    if number == signal.SIGTERM:
        _ends_or_goes_on(lab, tcp, 1)
    else:
        assert _ends(tcp) < 1
    tcp.close()
    until(lambda: set(lab.states(bridge, port)) <= {"TIME-WAIT"} or lab.in_kernel, 1, "both sides")
    lab.script("restart", bridge)
    assert lab.curl("/100m", "-I").backend == bridge


def test_a_killed_bridge_ends_its_connections_when_it_is_back(lab: Lab) -> None:
    tcp, bridge = _downloading(lab)
    port = tcp.getsockname()[1]
    os.kill(lab.pid(bridge), signal.SIGKILL)
    until(lambda: not lab.alive(bridge), WAIT, "it is gone")
    lab.script("restart", bridge)
    _ends_or_goes_on(lab, tcp, WAIT)
    tcp.close()
    until(lambda: not lab.states(bridge, port, to=80), WAIT, "so does the server's side")


def test_a_balancer_that_stops_leaves_its_clients_to_the_host(lab: Lab) -> None:
    tcp, _ = _downloading(lab)
    lab.script("stop", "balancer")
    try:
        assert _ends(tcp) < 1
        with pytest.raises(ConnectionRefusedError):
            lab.connect()
    finally:
        lab.script("start", "balancer")
    assert lab.curl("/").status == 200


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_a_request_waits_for_what_was_killed(lab: Lab, program: str) -> None:
    """The connection was opened before, the request comes while nobody is there."""
    path = lab.path_for("1k", "backend1")
    with lab.connect() as tcp:
        pid = lab.pid(program)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lab.alive(program), WAIT, "it is gone")
        tcp.sendall(web.request(path))
        time.sleep(0.5)
        lab.script("restart", program)
        assert web.response(tcp).status == 200


def test_a_hang_up_ends_nothing(lab: Lab) -> None:
    pids = {program: lab.pid(program) for program in ("balancer", "backend1", "backend2")}
    starts = {program: lab.log_end(program) for program in pids}
    for pid in pids.values():
        os.kill(pid, signal.SIGHUP)
    for program, start in starts.items():
        until(lambda: "SIGHUP" in lab.log(program, start), WAIT, f"{program} says so")  # noqa: B023
    assert lab.curl("/").status == 200


def test_a_missing_bridge_is_named(lab: Lab) -> None:
    bridge = lab.curl("/1k", "-I").backend
    start = lab.log_end("balancer")
    os.kill(lab.pid(bridge), signal.SIGKILL)
    until(lambda: not lab.alive(bridge), WAIT, "it is gone")
    try:
        with lab.connect() as tcp:
            tcp.sendall(web.request("/1k"))
            warned = rf"WARNING {bridge} does not answer: \d+ handoffs repeated"
            until(lambda: re.search(warned, lab.log("balancer", start)), WAIT, "it is named")
    finally:
        lab.script("restart", bridge)


def test_counters_asked_for_in_a_burst(lab: Lab) -> None:
    """A signal may come while the program writes its log, for an earlier one say."""
    pids = [lab.pid(program) for program in ("balancer", "backend1", "backend2")]
    for _ in range(3000):
        for pid in pids:
            os.kill(pid, signal.SIGUSR2)
    assert lab.curl("/").status == 200
    assert lab.counters("balancer")["handoffs"] > 0
