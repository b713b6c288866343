"""As services: without root's rights both programs do all they do with them, on both paths, remove
what they set up, and tell their manager how they are."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, VIP, Lab, until
from tests.e2e.service import Service, setting

pytestmark = pytest.mark.root


MakeService = Callable[..., Service]


@pytest.fixture
def service(lab: Lab) -> Iterator[MakeService]:
    """Makes services in place of the lab's programs, which run again at the end."""
    stopped = []
    with ExitStack() as ending:

        def make(program: str, more: str = "", **changes: str) -> Service:
            if program not in stopped:
                lab.script("stop", program)
                stopped.append(program)
            made = Service(lab, program, more, **changes)
            ending.callback(made.close)
            return made

        try:
            yield make
        finally:
            ending.close()
            os.chown(lab.directory / "etc" / "key", 0, 0)
            for program in sorted(stopped, key=lambda each: each == "balancer"):
                lab.script("start", program)


def chains(lab: Lab, program: str) -> list[str]:
    return [line for line in lab.rules(program) if "L3DSR" in line]


def in_kernel(lab: Lab, program: str) -> bool:
    return "l3dsr" in lab.run(program, "tc", "filter", "show", "dev", "eth0", "ingress")


def assert_nothing_left(lab: Lab, service: Service) -> None:
    assert not chains(lab, service.program)
    assert not service.pins()
    assert not in_kernel(lab, service.program)


@pytest.mark.parametrize("datapath", ["nfqueue", "ebpf"])
def test_without_root_they_serve_and_leave_nothing(
    lab: Lab, service: MakeService, datapath: str
) -> None:
    path = lab.path_for("20m", "backend1")
    services = [service(program, datapath=f'"{datapath}"') for program in ("backend1", "balancer")]
    for each in services:
        each.start()
        status = Path(f"/proc/{each.pid}/status").read_text()
        assert "\nUid:\t0\t" not in status
        assert "warning" not in each.log(), each.log()
        assert f"datapath {datapath}: " in each.log()
    key = (lab.directory / "etc" / "key").stat()
    assert stat.S_IMODE(key.st_mode) == 0o600
    assert key.st_uid != 0

    assert len(lab.curl(path).body) == 20 << 20

    for each in services:
        assert chains(lab, each.program)
        assert bool(each.pins()) == in_kernel(lab, each.program) == (datapath == "ebpf")
        assert each.stop() == 0
        assert_nothing_left(lab, each)


def test_killed_they_take_over_what_they_left(lab: Lab, service: MakeService) -> None:
    """As that user, too: what the kernel kept is its own. SIGTERM leaves it there, and waits for
    nothing."""
    balancer = service("balancer", "\n[timeouts]\ndrain = 60.0\n", datapath='"ebpf"')
    balancer.start()
    with lab.connect() as tcp:
        assert get(tcp, "/") == 200
        assert balancer.stop(signal.SIGKILL) == -signal.SIGKILL
        assert chains(lab, "balancer")
        assert balancer.pins()
        balancer.start()
        until(lambda: lab.counters("balancer").get("flows_adopted"), 5, "the flow is taken over")
        assert get(tcp, "/") == 200
    assert balancer.stop(signal.SIGTERM) == 0
    assert chains(lab, "balancer")
    assert balancer.pins()
    flushed = balancer.flush()
    assert flushed.returncode == 0, flushed.stderr
    assert_nothing_left(lab, balancer)


def test_what_root_left_is_theirs(lab: Lab, service: MakeService) -> None:
    """Somebody ran the program by hand, and it was killed."""
    by_hand = ["--config", str(lab.directory / "etc" / "balancer.toml"), "--datapath", "ebpf"]
    balancer = service("balancer", datapath='"ebpf"')
    command = balancer.on_host(str(ROOT / ".venv" / "bin" / "balancer"), *by_hand)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        assert any(b" ready: " in line for line in run.stderr)
        run.kill()
    assert balancer.pins()
    balancer.start()
    assert lab.curl("/").status == 200
    assert balancer.stop() == 0
    assert_nothing_left(lab, balancer)


def test_iptables_legacy_lets_them_have_its_lock(lab: Lab, service: MakeService) -> None:
    commands = lab.directory / "run" / "legacy"
    commands.mkdir()
    for form in ("", "-save", "-restore"):
        legacy = shutil.which(f"iptables-legacy{form}")
        assert legacy, "Debian's package iptables has it"
        (commands / f"iptables{form}").symlink_to(legacy)
    balancer = service("balancer", datapath='"nfqueue"')
    balancer.start(iptables=str(commands))
    assert "L3DSR" in lab.run("balancer", "iptables-legacy-save")
    assert lab.curl("/").status == 200
    assert balancer.stop() == 0
    assert "L3DSR" not in lab.run("balancer", "iptables-legacy-save")
    shutil.rmtree(commands)


def test_the_manager_is_told_how_they_are(lab: Lab, service: MakeService) -> None:
    bridge = service("backend1", datapath='"nfqueue"')
    bridge.start()  # until READY=1
    assert chains(lab, "backend1")

    until(lambda: alive(bridge) >= 2, 5, "it reports to the watchdog")
    bridge.tell(signal.SIGSTOP)
    time.sleep(0.3)  # one may have been on its way
    before = alive(bridge)
    time.sleep(1.5)
    assert alive(bridge) == before, "nobody else reports for a loop that stands still"
    bridge.tell(signal.SIGCONT)
    until(lambda: alive(bridge) > before, 5, "it reports again")

    bridge.tell(signal.SIGHUP)
    until(lambda: bridge.tells("RELOADING=1"), 5, "it reloads")
    until(lambda: bridge.told().count("READY=1") == 2, 5, "it is ready again")

    assert bridge.stop() == 0
    assert "STOPPING=1" in bridge.told()

    bridge.start()
    assert setting("backend1", "Restart") == "on-failure"
    assert bridge.stop(signal.SIGABRT) == -signal.SIGABRT, "as a watchdog ends one that hangs"
    assert "Fatal Python error: Aborted" in bridge.log()
    assert "common/program/loop.py" in bridge.log(), "where it stood"


@pytest.mark.parametrize(
    ("program", "datapath", "number"),
    [
        ("balancer", "nfqueue", signal.SIGTERM),
        ("balancer", "ebpf", signal.SIGINT),
        ("backend1", "nfqueue", signal.SIGTERM),
    ],
)
def test_a_stop_waits_for_connections_if_asked(
    lab: Lab, service: MakeService, program: str, datapath: str, number: int
) -> None:
    """New ones are refused meanwhile, by a kernel that answers SYNs itself as well; or go to
    another backend, where a bridge stops."""
    drained = service(program, "\n[timeouts]\ndrain = 20.0\n", datapath=f'"{datapath}"')
    drained.start()
    path = lab.path_for("20m", "backend1")
    with lab.connect() as tcp:
        tcp.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        size = len(tcp.recv(1000))
        drained.tell(number)
        until(lambda: "draining: " in drained.log(), 5, f"{program} drains")
        if program == "balancer":
            assert refused(lab, path)
        else:
            assert lab.curl(path, "-I").backend == "backend2"
        while more := tcp.recv(1 << 20):
            size += len(more)
    assert size > 20 << 20
    assert drained.status() == 0
    assert "drained: 0 connections" in drained.log()
    (extended,) = (line for line in drained.told() if line.startswith("EXTEND_TIMEOUT_USEC="))
    assert int(extended.partition("=")[2]) >= 20_000_000
    assert_nothing_left(lab, drained)


@pytest.mark.parametrize(("seconds", "impatient"), [(1.0, False), (60.0, True)])
def test_a_stop_waits_no_longer_than_asked(
    lab: Lab, service: MakeService, seconds: float, impatient: bool
) -> None:
    """Nor once another signal says to stop."""
    drained = service("balancer", f"\n[timeouts]\ndrain = {seconds}\n", datapath='"nfqueue"')
    drained.start()
    with lab.connect() as tcp:
        assert get(tcp, "/") == 200
        began = time.monotonic()
        drained.tell(signal.SIGTERM)
        until(lambda: "draining: 1 connections" in drained.log(), 5, "it drains")
        if impatient:
            drained.tell(signal.SIGTERM)
        assert drained.status() == 0  # it has half a minute
        assert impatient or time.monotonic() - began >= seconds
    assert "drained: 1 connections" in drained.log()
    assert_nothing_left(lab, drained)


def get(tcp: socket.socket, path: str) -> int:
    """The status of the answer on a connection that stays open."""
    tcp.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    answer = tcp.recv(65536)
    while b"Hello" not in answer:
        more = tcp.recv(65536)
        assert more, answer
        answer += more
    return int(answer.split()[1])


def refused(lab: Lab, path: str) -> bool:
    """Whether a new connection is reset at once, before or after its request."""
    command = lab.command("client", "curl", "-sS", "--path-as-is", "-m", "5", f"http://{VIP}{path}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return done.returncode in (7, 56)  # could not connect; reset


def alive(service: Service) -> int:
    return service.told().count("WATCHDOG=1")
