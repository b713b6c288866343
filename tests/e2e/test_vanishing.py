"""Clients that vanish without a word: the server ends by its own timers, and nothing is left."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import web
from tests.e2e.lab import VIP, Lab, until

pytestmark = pytest.mark.root

PROGRAMS = ("backend1", "backend2", "balancer")
SIZES = ("flows", "waiting", "buffered_bytes", "held_bytes")
# Seconds; longer than the server waits for an acknowledgment of its last retransmission (3.2), so
# that it gives up by itself.
IDLE = 5.0


@pytest.fixture(scope="module", autouse=True)
def hasty(running_lab: Lab) -> Iterator[None]:
    """Time-outs that can be waited for, of both programs and of the servers' kernels."""

    def ends(text: str) -> Callable[[str], str]:
        return lambda before: f"{before}\n[timeouts]\n{text}\n"

    bridge = ends(f"idle = {IDLE}\nclosing = 2.0\nlinger = 1.0")
    balancer = ends(f"request = {IDLE}\nidle = {IDLE + 1}\nclosing = 1.0")
    with (
        running_lab.configured(balancer=balancer, backend1=bridge, backend2=bridge),
        running_lab.sysctl("backend1", net_ipv4_tcp_retries2=3),
        running_lab.sysctl("backend2", net_ipv4_tcp_retries2=3),
    ):
        yield


def test_nothing_is_left_of_vanished_clients(lab: Lab, report: Callable[[str], None]) -> None:
    """At each point of a connection's life; then the client's side of the network goes dark."""
    clients = {
        "connected": lab.connect(),
        "half a head": _asks(lab, b"GET /1"),
        "answered": _asks(lab, web.request("/1k")),
        "ending": _asks(lab, web.request("/100m")),
        "downloading": _asks(lab, web.request("/100m")),
        "uploading": _asks(
            lab, web.request("/upload/x", "Content-Length: 100000000", method="PUT") + bytes(99_999)
        ),
    }
    assert web.response(clients["answered"]).status == 200
    for name in ("ending", "downloading"):
        assert clients[name].recv(1000)
    ports = {tcp.getsockname()[1]: name for name, tcp in clients.items()}
    before = _sizes(lab)
    assert before["flows at balancer"] >= 4
    assert before["waiting at balancer"] == 2
    gave_up = _gave_up(lab)
    with _dark(lab):
        started = time.monotonic()
        clients["ending"].shutdown(socket.SHUT_WR)
        until(lambda: not _connected(lab, ports), 30, "the servers' connections end")
        servers = time.monotonic() - started
        until(lambda: not any(_sizes(lab).values()), 30, "both programs forget")
        ours = time.monotonic() - started
        for tcp in clients.values():
            tcp.close()
        # what the client's kernel still sends is lost here, and told so there once it is back
        assert _gave_up(lab) > gave_up, "a server's own timer ended its connection"
    assert lab.curl("/1k").status == 200
    report(f"servers' connections ended after {servers:.1f} s, the last record after {ours:.1f} s")


def _asks(lab: Lab, ask: bytes) -> socket.socket:
    tcp = lab.connect()
    tcp.sendall(ask)
    return tcp


@contextmanager
def _dark(lab: Lab) -> Iterator[None]:
    """Neither gets a packet of the other's: client and all of the lab."""
    raw = ("iptables", "-w", "-t", "raw")
    rules = (("PREROUTING", "-s", VIP, "-j", "DROP"), ("OUTPUT", "-d", VIP, "-j", "DROP"))
    try:
        for rule in rules:
            lab.run("client", *raw, "-I", *rule)
        yield
    finally:
        for rule in rules:
            lab.run("client", *raw, "-D", *rule, check=False)


def _connected(lab: Lab, ports: dict[int, str]) -> list[str]:
    """Which of the clients the servers still have a connection with. In TIME-WAIT are others', of
    earlier tests from the same port: these clients have sent no FIN that arrived."""
    return [
        name
        for port, name in ports.items()
        if {*lab.states("backend1", port), *lab.states("backend2", port)} - {"TIME-WAIT"}
    ]


def _sizes(lab: Lab) -> dict[str, int]:
    found = {}
    for program in PROGRAMS:
        counters = lab.counters(program)
        found |= {f"{size} at {program}": counters.get(size, 0) for size in SIZES}
    return found


def _gave_up(lab: Lab) -> int:
    """Connections that the servers' kernels ended as nobody acknowledged anything."""
    count = 0
    for host in ("backend1", "backend2"):
        counted = lab.run(host, "nstat", "-asz", "TcpExtTCPAbortOnTimeout")
        found = re.search(r"TcpExtTCPAbortOnTimeout\s+(\d+)", counted)
        assert found, counted
        count += int(found[1])
    return count
