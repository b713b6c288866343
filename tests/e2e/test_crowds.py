"""More connections than there is room for: the bounds hold, the oldest idle ones go first, and all
others are served."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e import web
from tests.e2e.lab import LAB, VIP, Lab, until
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

PROMPT = 3  # seconds after which an idle connection may be taken for one, at the latest
BUFFERED = 1000  # bytes for each waiting connection: a segment of a few and its bookkeeping


def test_slow_heads(lab: Lab, amount: Amount, report: Report) -> None:
    """Clients that send a byte of their request now and then: the newest so many may, while others'
    requests are answered at once."""
    count, room = amount((400, 250), (5000, 4000))
    rounds, pause = amount((6, 0.3), (12, 5.0))
    head, body = web.request("/1k", close=True), (LAB / "www" / "1k").read_bytes()
    honest = web.Tally()
    limits = _limited(lab, "balancer", waiting=room, buffered_bytes=BUFFERED * room)
    with limits, _crowd() as crowd:
        grown = lab.growth("balancer")
        # Who is given up before its byte is acknowledged sends that again, and is new once more.
        lab.inside("client", crowd.connect, room, head[:1])
        until(lambda: grown("heads_owned") >= room, 30, "their bytes are acknowledged")
        lab.inside("client", crowd.connect, count - room, head[:1])
        most = {"waiting": 0, "buffered_bytes": 0}
        for sent in range(1, rounds):
            started = time.monotonic()
            crowd.send(head[sent : sent + 1])
            tally = web.at_once(lab, 20, 4, "/1k", body)
            honest.seconds += tally.seconds
            honest.failures += tally.failures
            gauges = lab.counters("balancer")
            most = {name: max(most[name], gauges[name]) for name in most}
            amount.progress(sent, rounds)
            time.sleep(max(started + pause - time.monotonic(), 0))
        evicted = grown("waiting_evicted")
        newest = crowd.connections[-(room - 10) :]  # but for the honest ones' places
        answers = [_asked(tcp, head[rounds:]) for tcp in newest]
        crowded = grown("head_crowded_out")
    report(
        f"{count:,} slow heads, {evicted:,} evicted, at most {most['waiting']:,} waiting and "
        f"{most['buffered_bytes']:,} bytes; {len(honest.seconds)} others' requests, the slowest "
        f"{honest.slowest * 1000:.0f} ms"
    )
    assert honest.failures == []
    assert most["waiting"] <= room
    assert most["buffered_bytes"] <= BUFFERED * room
    assert evicted >= count - room
    assert all(answer.endswith(body) for answer in answers)
    assert crowded == 0


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_idle_connections(lab: Lab, amount: Amount, report: Report, program: str) -> None:
    """Nearly twice as many as the table takes: those that came first are over, the later ones and
    the one in use are not."""
    room = amount(100, 2000)
    later = room - 10
    path = lab.path_for("1k", "backend1")
    with _limited(lab, program, flows=room), _crowd() as crowd, lab.connect() as used:
        _ask(used, path)
        lab.inside("client", crowd.connect, room - 1)
        for tcp in crowd.connections:
            _ask(tcp, path)
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < PROMPT:
            _ask(used, path)
            time.sleep(0.1)
        grown = lab.growth(program)
        for _ in range(later):
            lab.inside("client", crowd.connect, 1)
            _ask(crowd.connections[-1], path)
            _ask(used, path)
        assert lab.counters(program)["flows"] <= room
        evicted = grown("flows_evicted")
        report(f"{room + later} connections, room for {room}: {evicted} evicted")
        assert evicted == later
        for tcp in crowd.connections[later:]:
            _ask(tcp, path)
        assert all(_is_over(crowd.connections[at], path) for at in (0, later // 2, later - 1))
        _ask(used, path)


class Crowd:
    """Many connections of the client."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []

    def connect(self, count: int, data: bytes = b"") -> None:
        """So many more, each of which sends something; run on the client."""
        for _ in range(count):
            self.connections.append(socket.create_connection((VIP, 80), 20))
            self.connections[-1].sendall(data)

    def send(self, data: bytes) -> None:
        """The same from each that still stands."""
        for tcp in self.connections:
            with suppress(ConnectionError):
                tcp.sendall(data)


@contextmanager
def _crowd() -> Iterator[Crowd]:
    """Closed at the end by RST: so many in TIME-WAIT would take the client's ports for a minute."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd()
    try:
        yield crowd
    finally:
        for tcp in crowd.connections:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
            tcp.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _limited(lab: Lab, program: str, **limits: int) -> Iterator[None]:
    lines = "".join(f"{name} = {value}\n" for name, value in limits.items())
    with lab.configured(**{program: lambda text: f"{text}\n[limits]\n{lines}"}):
        yield


def _asked(tcp: socket.socket, data: bytes) -> bytes:
    """What the server answers to the rest of a request."""
    tcp.sendall(data)
    return web.rest(tcp)


def _ask(tcp: socket.socket, path: str) -> None:
    tcp.sendall(web.request(path))
    assert web.response(tcp).status == 200


def _is_over(tcp: socket.socket, path: str) -> bool:
    """Whether a request is answered by RST."""
    tcp.settimeout(10)
    try:
        tcp.sendall(web.request(path))
        return tcp.recv(1) == b""
    except ConnectionResetError:
        return True
