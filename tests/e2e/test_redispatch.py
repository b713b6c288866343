"""A backend that cannot serve a request, or is silent, is passed over: the client gets one answer,
no reset, and notices nothing but a little time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.lab import LAB, VIP, Lab, until

pytestmark = pytest.mark.root

RST, SYN, FIN, ACK = 4, 2, 1, 16
SILENCE = 1.0  # seconds, by default
LONG = "Cookie: " + "c" * 6000  # with it a head takes several segments


@pytest.fixture
def path(lab: Lab) -> str:
    """One that backend2 serves, and backend1 as well."""
    return lab.path_for("1k", "backend2")


@contextmanager
def refusing(lab: Lab) -> Iterator[None]:
    """backend2's server has ended, and its host refuses connections."""
    lab.script("stop", "nginx-backend2")
    try:
        yield
    finally:
        lab.script("start", "nginx-backend2")


@contextmanager
def dead(lab: Lab) -> Iterator[None]:
    """backend2's server does not answer at all."""
    rule = ("INPUT", "-d", "192.168.33.31", "-p", "tcp", "--dport", "80", "-j", "DROP")
    lab.run("backend2", "iptables", "-I", *rule)
    try:
        yield
    finally:
        lab.run("backend2", "iptables", "-D", *rule)


@contextmanager
def silent(lab: Lab) -> Iterator[None]:
    """backend2's bridge stands still."""
    pid = lab.pid("backend2")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def away(lab: Lab) -> Iterator[None]:
    """backend2's host cannot be reached."""
    lab.run("backend2", "ip", "link", "set", "eth0", "down")
    try:
        yield
    finally:
        lab.run("backend2", "ip", "link", "set", "eth0", "up")


def requests_of(backend: str, path: str) -> int:
    """How often a server was asked for a path."""
    log = (LAB / "log" / f"nginx-{backend}.access.log").read_text()
    return log.count(f" {path} ")


def of_connection(packets: list[Packet], port: int) -> list[Packet]:
    return [packet for packet in packets if port in packet.ports]


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [(refusing, 0.0, 0.5), (dead, 0.9, 2.0), (silent, 0.9, 2.0), (away, 0.9, 2.0)],
    ids=["refused", "server silent", "bridge silent", "host away"],
)
@pytest.mark.parametrize("headers", [(), (LONG,)], ids=["one segment", "several"])
def test_the_next_backend_serves_it(
    lab: Lab, path: str, fault: object, least: float, most: float, headers: tuple[str, ...]
) -> None:
    options = [word for header in headers for word in ("-H", header)]
    with capture(lab, "client") as packets, fault(lab):  # type: ignore[operator]
        answer = lab.curl(path, *options)
    assert (answer.status, answer.backend) == (200, "backend1")
    assert least <= answer.seconds <= most
    seen = of_connection(packets.packets, answer.port)
    assert not any(packet.flags & RST for packet in seen if not packet.outgoing)
    assert sum(packet.flags & SYN != 0 for packet in seen if not packet.outgoing) == 1
    heads = [p for p in seen if not p.outgoing and p.payload.startswith(b"HTTP/1.1 ")]
    assert len(heads) == 1, "one response"


def test_what_the_balancer_has_acknowledged_is_handed_on_too(lab: Lab, path: str) -> None:
    """A client that dribbles its request has it acknowledged: nobody but the balancer has it."""
    request = web.request(path, close=True)
    with refusing(lab), lab.connect() as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, 12, 4):
            tcp.sendall(request[at : at + 4])
            until(lambda: _unacknowledged(tcp) == 0, 5, "what was sent is acknowledged")
        tcp.sendall(request[12:])
        answer = web.response(tcp)
    assert (answer.status, answer.backend) == (200, "backend1")


def test_a_connection_goes_on_at_the_backend_that_took_it(lab: Lab, path: str) -> None:
    with lab.connect() as tcp:
        with refusing(lab):
            tcp.sendall(web.request(path))
            assert web.response(tcp).backend == "backend1"
        for _ in range(3):
            tcp.sendall(web.request(path))
            assert web.response(tcp).backend == "backend1", "though its own is back"
    assert lab.curl(path).backend == "backend2", "where others of this key go again"


def test_a_bridge_that_stood_still_serves_no_request_twice(lab: Lab, path: str) -> None:
    """It wakes up with the handoff in its queue, and behind that the word to forget it."""
    asked = requests_of("backend2", path)
    with capture(lab, "client") as packets:
        with silent(lab):
            answer = lab.curl(path)
        assert answer.backend == "backend1"
        assert lab.curl(path).backend == "backend2", "it is awake, and through its queue"
    assert requests_of("backend2", path) == asked + 1
    seen = of_connection(packets.packets, answer.port)
    assert not any(packet.flags & RST for packet in seen if not packet.outgoing)


def test_nobody_is_there(lab: Lab, path: str) -> None:
    with refusing(lab):
        lab.script("stop", "nginx-backend1")
        try:
            answer = lab.curl(path)
        finally:
            lab.script("start", "nginx-backend1")
    assert (answer.status, answer.backend) == (503, "")
    assert lab.curl(path, to=VIP).status == 200


def _unacknowledged(tcp: socket.socket) -> int:
    """Bytes that were sent and not acknowledged: tcpi_unacked of struct tcp_info."""
    info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], "little")
