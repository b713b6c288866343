"""The kernel's path, in a lab of its own: what the programs are spared, and what outlives them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.conftest import brought_up
from tests.e2e.lab import CONFIGURATIONS, LAB, NAME, PROGRAMS, Lab, until
from tests.e2e.raw import raw_sender
from tests.soak import Amount

pytestmark = pytest.mark.root

PART = 4 << 20  # bytes read between two events
BEGINNING = 1 << 20  # by then the kernel has the connection: its record is written a little later
FAST = {"balancer": ["fast_packets"], "backend1": ["fast_packets_up", "fast_packets_down"]}


@pytest.fixture(scope="module")
def kernel_lab() -> Iterator[Lab]:
    with brought_up(Lab("ebpf", f"{NAME}-kernel", LAB / "kernel")) as lab:
        yield lab


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


def test_of_a_short_connection_python_sees_request_and_server_only(
    kernel_lab: Lab, report: Callable[[str], None]
) -> None:
    """At the balancer the request, at the bridge that and the server's SYN-ACK; SYN, FINs and all
    acknowledgments are the kernel's, and their end is told for many connections at once."""
    path, count = kernel_lab.path_for("1k", "backend1"), 200
    grown = {program: kernel_lab.growth(program) for program in FAST}
    body = (kernel_lab.directory / "www" / "1k").read_bytes()
    answers = web.at_once(kernel_lab, count, 8, path, body)
    assert answers.failures == []
    kernel_lab.counters("backend1")  # has it tell what has ended
    assert grown["balancer"]("fast_syns") == count
    assert grown["balancer"]("answer_ended") < count / 2
    for program, packets in (("balancer", 1), ("backend1", 2)):
        seen = grown[program]("packets") / count
        report(f"{program}: {seen} packets in Python a connection")
        assert packets <= seen < packets + 0.6


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_programs_end_and_start_again_in_a_download(
    kernel_lab: Lab, path: str, ending: signal.Signals, amount: Amount
) -> None:
    expected = (kernel_lab.directory / "www" / "100m").read_bytes()
    with kernel_lab.connect() as tcp:
        for _ in range(amount(1, 5)):
            tcp.sendall(web.request(path))
            _head_left_out(tcp)
            received = _read(tcp, BEGINNING)
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


def test_an_upload_whose_handoff_came_twice_is_the_kernels(kernel_lab: Lab) -> None:
    """What follows a handoff is for Python only until that has found it to be the same."""
    head = web.request("/upload/twice", "Content-Length: 30000", method="PUT")
    with raw_sender(kernel_lab) as sender:
        upload = sender.open()
        upload.say(head)
        bridges = ("backend1", "backend2")
        until(lambda: any(upload.port in _ports(kernel_lab, b) for b in bridges), 2, "it is there")
        again = {bridge: kernel_lab.growth(bridge) for bridge in bridges}
        upload.send(head, "PA", seq=upload.isn + 1)
        until(lambda: sum(of("handoffs_again") for of in again.values()) == 1, 2, "the repetition")
        for _ in range(30):  # no more than the server's window
            upload.say(bytes(1000))
        assert upload.read(lambda data: data.startswith(b"HTTP/1.1 20"))
        assert sum(of("spliced_up") for of in again.values()) == 1


def test_a_port_is_used_again_across_a_restart(kernel_lab: Lab) -> None:
    """A client has vanished, the next one of its port has its SYN-ACK, and then comes back to a
    balancer that was started anew: its request is its own, and hashed to another server."""
    old, new = (kernel_lab.path_for("1k", name) for name in ("backend1", "backend2"))
    with raw_sender(kernel_lab) as sender:
        vanished = sender.open()
        vanished.say(web.request(old))
        vanished.read(_whole)
        again = sender.open(port=vanished.port, isn=5_000_000)
        os.kill(kernel_lab.pid("balancer"), signal.SIGKILL)
        until(lambda: not kernel_lab.alive("balancer"), 5, "it ends")
        kernel_lab.script("start", "balancer")
        again.send()
        again.say(web.request(new))
        assert b"X-Backend: backend2" in again.read(_whole)


def test_who_has_a_dscp_that_is_not_configured_any_more_is_told(kernel_lab: Lab) -> None:
    """The kernel steers by what is configured now, so that the bridge sees a stranger."""
    path = kernel_lab.path_for("1k", "backend1")
    files = {name: kernel_lab.directory / "etc" / CONFIGURATIONS[name] for name in PROGRAMS}
    before = {name: file.read_text() for name, file in files.items()}
    with kernel_lab.connect() as tcp:
        tcp.sendall(web.request(path))
        assert web.response(tcp).status == 200
        try:
            other = {name: text.replace("dscp = 1", "dscp = 2") for name, text in before.items()}
            _restart_with(kernel_lab, other)
            tcp.sendall(web.request(path))
            with pytest.raises(ConnectionResetError):
                tcp.recv(1)
        finally:
            _restart_with(kernel_lab, before)


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


def _ports(lab: Lab, host: str) -> set[int]:
    """Clients' ports that a host's server has connections from."""
    lines = lab.run(host, "ss", "-Htn", "state", "established").splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


def _whole(data: bytes) -> bool:
    """Whether a response of 1 KiB is."""
    _, _, body = data.partition(b"\r\n\r\n")
    return len(body) == 1024


def _restart_with(lab: Lab, configurations: dict[str, str]) -> None:
    """End the programs, with connections left to the kernel, and start them so configured."""
    for name, text in configurations.items():
        os.kill(lab.pid(name), signal.SIGTERM)
        until(lambda: not lab.alive(name), 5, "it ends")  # noqa: B023
        (lab.directory / "etc" / CONFIGURATIONS[name]).write_text(text)
    for name in reversed(configurations):
        lab.script("start", name)


def _head_left_out(tcp: socket.socket) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += tcp.recv(1)
    assert head.startswith(b"HTTP/1.1 200 ")


def _read(tcp: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = tcp.recv(min(size, 1 << 20))
        assert part, "the download has ended"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
