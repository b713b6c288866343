"""The kernel's path, in a lab of its own: what the programs are spared, and what outlives them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.conftest import lacking
from tests.e2e.lab import LAB, NAME, PROGRAMS, Lab, until
from tests.soak import Amount

pytestmark = pytest.mark.root

PART = 4 << 20  # bytes read between two events
FAST = {"balancer": ["fast_packets"], "backend1": ["fast_packets_up", "fast_packets_down"]}


@pytest.fixture(scope="module")
def kernel_lab() -> Iterator[Lab]:
    if missing := lacking():
        pytest.skip(f"needs {missing}")
    lab = Lab("ebpf", f"{NAME}-kernel", LAB / "kernel")
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def path(kernel_lab: Lab) -> str:
    """Of 100 MB, by way of the first bridge."""
    return kernel_lab.path_for("100m", "backend1")


def test_bulk_never_reaches_python(
    kernel_lab: Lab, path: str, report: Callable[[str], None]
) -> None:
    grown = {program: kernel_lab.growth(program) for program in FAST}
    with kernel_lab.connect() as tcp:
        for _ in range(10):  # a gigabyte
            tcp.sendall(web.request(path))
            assert len(web.response(tcp).body) == 100 << 20
    for program, names in FAST.items():
        fast, slow = sum(map(grown[program], names)), grown[program]("packets")
        report(f"{program}: {fast} packets in the kernel, {slow} in Python")
        assert fast > 99 * slow


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_programs_end_and_start_again_in_a_download(
    kernel_lab: Lab, path: str, ending: signal.Signals, amount: Amount
) -> None:
    expected = (kernel_lab.directory / "www" / "100m").read_bytes()
    with kernel_lab.connect() as tcp:
        for _ in range(amount(1, 5)):
            tcp.sendall(web.request(path))
            received = _head_left_out(tcp)
            for program in ("balancer", "backend1"):
                os.kill(kernel_lab.pid(program), ending)
                until(lambda: not kernel_lab.alive(program), 5, "it ends")  # noqa: B023
                received += _read(tcp, PART)
                kernel_lab.script("start", program)
                received += _read(tcp, PART)
            received += _read(tcp, len(expected) - len(received))
            assert received == expected
        port = tcp.getsockname()[1]
    until(lambda: kernel_lab.closed(port), 5, "it closes as if nothing had been")
    assert kernel_lab.counters("balancer")["flows_adopted"] > 0
    assert kernel_lab.counters("backend1")["flows_adopted"] > 0


def test_idle_connections_outlive_the_programs(kernel_lab: Lab, path: str) -> None:
    """They are used again after the restart, and told apart from what is forged."""
    small = kernel_lab.path_for("1k", "backend1")
    connections = [kernel_lab.connect() for _ in range(20)]
    try:
        for tcp in connections:
            tcp.sendall(web.request(small))
            assert web.response(tcp).status == 200
        for program in PROGRAMS:
            os.kill(kernel_lab.pid(program), signal.SIGTERM)
            until(lambda: not kernel_lab.alive(program), 5, "it ends")  # noqa: B023
        for program in reversed(PROGRAMS):
            kernel_lab.script("start", program)
        for tcp in connections:
            tcp.sendall(web.request(small))
            assert web.response(tcp).status == 200
            tcp.sendall(web.request(small, close=True))
            assert b"200 OK" in web.rest(tcp)
    finally:
        for tcp in connections:
            tcp.close()
    assert kernel_lab.curl(path, "-o", "/dev/null").status == 200


def test_an_uninvolved_filter_is_left_alone(kernel_lab: Lab) -> None:
    """Somebody else's, at the same hook, while the program starts and stops altogether."""
    hook = ("dev", "eth0", "ingress")
    nothing = "1,6 0 0 0,"  # classic BPF: no packet
    theirs = ("pref", "7", "protocol", "ip", "bpf", "bytecode", nothing, "flowid", "1:1")
    kernel_lab.run("backend2", "tc", "filter", "add", *hook, *theirs)
    try:
        kernel_lab.script("stop", "backend2")
        shown = kernel_lab.run("backend2", "tc", "filter", "show", *hook)
        assert "pref 7 " in shown
        assert "l3dsr" not in shown
        kernel_lab.script("start", "backend2")
        shown = kernel_lab.run("backend2", "tc", "filter", "show", *hook)
        assert "pref 7 " in shown
        assert "l3dsr-packetbridge" in shown
    finally:
        kernel_lab.run("backend2", "tc", "filter", "delete", *hook, "pref", "7", check=False)


def _head_left_out(tcp: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += tcp.recv(1)
    assert head.startswith(b"HTTP/1.1 200 ")
    return b""


def _read(tcp: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = tcp.recv(min(size, 1 << 20))
        assert part, "the download has ended"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
