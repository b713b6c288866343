"""Servers of all kinds: what their TCP lacks, how they refuse, fall silent and end."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e import web
from tests.e2e.capture import capture
from tests.e2e.lab import CLIENT, LAB, SERVER1, VIP, Lab, until
from tests.e2e.scripted import PORT, abort, echo_head, head_of, respond, scripted_service, serving
from tests.soak import Amount

pytestmark = pytest.mark.root

SCRIPTED, DIRECT = (VIP, PORT), (SERVER1, PORT)
MSS, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS = 2, 3, 4, 8  # kinds of TCP options
SETTINGS = {
    TIMESTAMPS: "net_ipv4_tcp_timestamps",
    SACK_PERMITTED: "net_ipv4_tcp_sack",
    WINDOW_SCALE: "net_ipv4_tcp_window_scaling",
}
WORDS = {TIMESTAMPS: "ts", SACK_PERMITTED: "sack", WINDOW_SCALE: "wscale:"}  # of ss
NOT_ALL = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 300_000
SUBNET = "192.168.33.0/24"
LARGEST_SCALE = {"net_ipv4_tcp_rmem": "4096 131072 536870912"}  # a window of 512 MB needs 14 bits


@pytest.fixture(scope="module")
def scripted(running_lab: Lab) -> Iterator[None]:
    with scripted_service(running_lab):
        yield


@pytest.fixture(scope="module")
def paths(running_lab: Lab) -> dict[str, str]:
    """Paths that backend1 serves."""
    files = ("1k", "1m", "20m", "upload/backends")
    return {name: running_lab.path_for(name, "backend1") for name in files}


# --- what the server's TCP offers ---


@pytest.mark.parametrize("clients", ["all", "the same", "others"])
@pytest.mark.parametrize(
    "lacking",
    [{TIMESTAMPS}, {SACK_PERMITTED}, {WINDOW_SCALE}, {TIMESTAMPS, SACK_PERMITTED, WINDOW_SCALE}],
    ids=["no timestamps", "no SACK", "no window scale", "none of them"],
)
def test_server_without_an_option(
    lab: Lab, paths: dict[str, str], lacking: set[int], clients: str, amount: Amount
) -> None:
    """With clients that have all of them, that lack the same, and that lack the others."""
    without = {"all": set(), "the same": lacking, "others": SETTINGS.keys() - lacking}[clients]
    _forget_the_server(lab)
    with _lacking(lab, "backend1", lacking), _lacking(lab, "client", set(without)):
        said = _exchange(lab, paths, amount(4 << 20, 20 << 20)).split()
    agreed = {option for option, word in WORDS.items() if any(w.startswith(word) for w in said)}
    assert agreed == SETTINGS.keys() - lacking - without


@pytest.mark.parametrize("mss", [536, 1200])
def test_server_with_a_small_mss(lab: Lab, paths: dict[str, str], mss: int, amount: Amount) -> None:
    """As behind a tunnel: it says that it takes no more, and sends no more. What comes larger it
    takes all the same: the client knows only what the path to the bridge takes."""
    with (
        lab.no_offloads(),
        _route(lab, "backend1", f"advmss {mss} mtu lock {mss + 40}"),
        capture(lab, "client") as packets,
    ):
        _forget_the_server(lab)
        said = _exchange(lab, paths, amount(4 << 20, 20 << 20))
    assert f" advmss:{mss - 12} " in said  # less the timestamps of each segment
    assert max(len(p.payload) for p in packets.packets if not p.outgoing) == mss - 12


def test_server_with_the_largest_window_scale(
    lab: Lab, paths: dict[str, str], amount: Amount
) -> None:
    with lab.sysctl("backend1", **LARGEST_SCALE):
        said = _exchange(lab, paths, amount(20 << 20, 200 << 20))
    assert re.search(r" wscale:\d+,14 ", said)


# --- how it refuses, or says nothing ---


def test_server_refuses(lab: Lab, scripted: None) -> None:
    """The bridge gives the client up as soon as the server has refused, and is asked again, as
    there is no other; the next client is served."""
    refused = lab.growth("backend1")
    started = time.monotonic()
    with lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        assert web.response(tcp).status == 503
    assert time.monotonic() - started < 5
    assert refused.reaches("backend_refused", 4)
    with serving(lab, _answer), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        assert web.response(tcp).status == 200


def test_server_drops_every_syn(lab: Lab, scripted: None, paths: dict[str, str]) -> None:
    """After a second the bridge gives the client up, at each of four attempts; others are served
    meanwhile."""
    rule = ["INPUT", "-p", "tcp", "-d", SERVER1, "--dport", str(PORT), "-j", "DROP"]
    silent = lab.growth("backend1")
    lab.run("backend1", "iptables", "-w", "-I", *rule)
    try:
        with lab.connect(to=SCRIPTED) as tcp:
            tcp.sendall(web.request("/"))
            asked = time.monotonic()
            assert lab.curl(paths["1k"]).status == 200
            assert web.response(tcp).status == 503
            assert 3.9 < time.monotonic() - asked < 8
    finally:
        lab.run("backend1", "iptables", "-w", "-D", *rule)
    assert silent.reaches("backend_silent", 4)
    assert silent("backend_refused") == 0


def test_server_accepts_late(lab: Lab, scripted: None) -> None:
    """Its kernel takes connections that it does not accept yet: they wait, as direct ones do, and
    those that the kernel's queue has no room for wait as well."""
    with lab.socket("backend1") as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(DIRECT)
        listener.listen(0)
        with ExitStack() as stack:
            clients = [stack.enter_context(lab.connect(to=SCRIPTED)) for _ in range(4)]
            for number, tcp in enumerate(clients):
                tcp.sendall(web.request(f"/{number}"))
                tcp.setblocking(False)
            time.sleep(1.5)
            for tcp in clients:
                with pytest.raises(BlockingIOError):
                    tcp.recv(1)
            for _ in clients:
                listener.settimeout(10)
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(10)
                    respond(accepted, head_of(accepted))
            for number, tcp in enumerate(clients):
                tcp.settimeout(10)
                assert web.response(tcp).body == web.request(f"/{number}")


# --- how it ends ---


def _close(tcp: socket.socket) -> None:
    """By FIN, which the request finds there, or by RST, where the request was first."""


def _reset(tcp: socket.socket) -> None:
    abort(tcp)


def _close_after_the_head(tcp: socket.socket) -> None:
    head_of(tcp)


def _reset_after_the_head(tcp: socket.socket) -> None:
    head_of(tcp)
    abort(tcp)


def _close_in_the_response(tcp: socket.socket) -> None:
    head_of(tcp)
    tcp.sendall(NOT_ALL)


def _reset_in_the_response(tcp: socket.socket) -> None:
    """Once the client has read it all: what is on its way a RST may overtake."""
    head_of(tcp)
    tcp.sendall(NOT_ALL + b"!")
    assert tcp.recv(1) == b"!"
    abort(tcp)


@pytest.mark.parametrize(
    "ending",
    [
        _close,
        _reset,
        _close_after_the_head,
        _reset_after_the_head,
        _close_in_the_response,
        _reset_in_the_response,
    ],
)
def test_server_ends_early(
    lab: Lab, scripted: None, ending: Callable[[socket.socket], None]
) -> None:
    """The client gets what it would get directly: the same bytes, and the same end."""
    with serving(lab, ending):
        direct = {_seen(lab, DIRECT, "client2") for _ in range(20)}
        seen = {_seen(lab, SCRIPTED, "client") for _ in range(20)}
    assert len(direct) == 1 or ending is _close
    assert seen <= direct


# --- connections that it remembers ---


@pytest.mark.parametrize("timestamps", [1, 0])
def test_port_again_while_the_server_waits(
    lab: Lab, scripted: None, timestamps: int, amount: Amount, report: Callable[[str], None]
) -> None:
    """The server has ended first, the client's port comes again at once; and that by turns directly
    and by way of the VIP, which is one pair of addresses and ports for the server. Directly it may
    meet numbers that are not later (RFC 9293 section 3.10.7.3), then the client's RST comes before
    the bridge's next SYN, a second later."""
    seconds = []
    settings = {"net_ipv4_tcp_max_tw_buckets": 0, "net_ipv4_tcp_timestamps": timestamps}
    with lab.sysctl("client", **settings), serving(lab, _answer):
        for port in range(62_100, 62_100 + (ports := amount(2, 60))):
            for to in (DIRECT, SCRIPTED, SCRIPTED, DIRECT, SCRIPTED):
                started = time.monotonic()
                with lab.connect(to=to, port=port) as tcp:
                    tcp.sendall(web.request("/"))
                    assert web.response(tcp).body == web.request("/")
                    assert tcp.recv(1) == b""
                    seconds.append(time.monotonic() - started)
                until(lambda: lab.closed(port), 2, "the client's end is acknowledged")  # noqa: B023
            amount.progress(port - 62_099, ports)
    late = [second for second in seconds if second > 0.5]
    report(f"{len(seconds)} connections, {len(late)} of them late, at most {max(seconds):.2f} s")
    assert max(seconds) < 2


def test_port_that_a_direct_connection_has(lab: Lab, scripted: None) -> None:
    """What the server says about it goes straight to the client; the bridge takes another port."""
    with serving(lab, echo_head) as server, lab.connect(to=DIRECT, port=62_099) as direct:
        direct.sendall(web.request("/direct"))
        assert web.response(direct).body == web.request("/direct")
        with lab.connect(to=SCRIPTED, port=62_099) as tcp:
            tcp.sendall(web.request("/vip"))
            assert web.response(tcp).body == web.request("/vip")
        direct.sendall(web.request("/again"))
        assert web.response(direct).body == web.request("/again")
    assert {address for address, _ in server.peers} == {CLIENT}
    assert len({port for _, port in server.peers}) == 2


# --- parts of the tests ---


def _answer(tcp: socket.socket) -> None:
    respond(tcp, head_of(tcp))


def _seen(lab: Lab, to: tuple[str, int], host: str) -> tuple[bytes, str]:
    """All that a client receives, and how it ends; it says when it has read a "!"."""
    received, end = b"", "FIN"
    try:
        with lab.connect(host, to) as tcp:
            tcp.sendall(web.request("/"))
            while part := tcp.recv(1 << 16):
                received += part
                if received.endswith(b"!"):
                    tcp.sendall(b"!")
    except (ConnectionResetError, BrokenPipeError):  # as early as when it has connected
        end = "RST"
    return received, end


@contextmanager
def _lacking(lab: Lab, host: str, options: set[int]) -> Iterator[None]:
    with lab.sysctl(host, **{SETTINGS[option]: 0 for option in options}):
        yield


@contextmanager
def _route(lab: Lab, host: str, metric: str) -> Iterator[None]:
    """The host's route to its subnet with a metric."""
    change = ["ip", "route", "change", SUBNET, "dev", "eth0"]
    before = lab.run(host, "ip", "route", "show", SUBNET).split()
    lab.run(host, *change, *before[3:], *metric.split())
    try:
        yield
    finally:
        lab.run(host, *change, *before[3:])


def _exchange(lab: Lab, paths: dict[str, str], size: int) -> str:
    """Download and upload so many bytes on one connection, each of them right; what the server's
    kernel says of its side."""
    content = (LAB / "www" / "20m").read_bytes()
    body = (content * (size // len(content) + 1))[:size]
    file, stored = LAB / "www" / "exchanged", LAB / "www" / "upload" / "backends"
    try:
        file.write_bytes(body)
        path = lab.path_for("exchanged", "backend1")
        with lab.connect() as tcp:
            tcp.sendall(web.request(path))
            assert web.response(tcp).body == body
            ends = f"sport = :80 and dport = :{tcp.getsockname()[1]}"
            said = lab.run("backend1", "ss", "-Htino", ends)
            length = f"Content-Length: {size}"
            tcp.sendall(web.request(paths["upload/backends"], length, method="PUT") + body)
            assert web.response(tcp).status in (201, 204)
        assert stored.read_bytes() == body
    finally:
        file.unlink(missing_ok=True)
        stored.unlink(missing_ok=True)
    return said


def _forget_the_server(lab: Lab) -> None:
    """A bridge remembers for a while that a server has no timestamps."""
    lab.script("restart", "backend1")
