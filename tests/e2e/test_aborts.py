"""Clients that reset while data are on their way: the server learns of it, and nothing is left."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import RST, capture
from tests.e2e.kernel_clients import begun
from tests.e2e.lab import VIP, Lab, until
from tests.e2e.scripted import PORT, abort, head_of, respond, serving

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("forgetful")]

SCRIPTED = (VIP, PORT)


@pytest.fixture(scope="module")
def forgetful(running_lab: Lab, scripted: None) -> Iterator[None]:
    """Both programs soon forget what has ended; what they take for alive they keep for long."""

    def ends(text: str) -> Callable[[str], str]:
        return lambda before: f"{before}\n[timeouts]\n{text}\n"

    bridge = ends("closing = 1.0\nlinger = 1.0")
    with running_lab.configured(balancer=ends("closing = 1.0"), backend1=bridge, backend2=bridge):
        yield


def test_reset_before_there_is_a_server(lab: Lab) -> None:
    """Request and RST leave together: the bridge has not opened its connection yet, or just has."""
    with serving(lab, _until_reset):
        for _ in range(20):
            tcp = lab.connect(to=SCRIPTED)
            tcp.sendall(web.request("/"))
            abort(tcp)
        _nothing_is_left(lab)


def test_reset_before_the_response(lab: Lab) -> None:
    asked, ended = threading.Event(), threading.Event()

    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        asked.set()
        _until_reset(tcp)
        ended.set()

    with serving(lab, serve):
        tcp = lab.connect(to=SCRIPTED)
        tcp.sendall(web.request("/"))
        assert asked.wait(5)
        abort(tcp)
        assert ended.wait(5), "the server learns of the reset"
        _nothing_is_left(lab)


def test_reset_behind_the_next_request(lab: Lab) -> None:
    """A server that has answered before delays its acknowledgments: it has the request, but nobody
    has heard so, when the RST passes."""
    ended = threading.Event()

    def serve(tcp: socket.socket) -> None:
        for _ in range(3):
            respond(tcp, head_of(tcp))
        _until_reset(tcp)
        ended.set()

    with serving(lab, serve):
        tcp = lab.connect(to=SCRIPTED)
        for _ in range(3):
            tcp.sendall(web.request("/"))
            web.response(tcp)
        tcp.sendall(web.request("/again"))
        abort(tcp)
        assert ended.wait(5), "the server learns of the reset"
        _nothing_is_left(lab)


def test_reset_in_mid_download(lab: Lab) -> None:
    """Data sent before the server knows arrive, and are answered by the client's kernel: RST."""
    backend = lab.curl("/100m", "-I").backend
    with capture(lab, "client") as packets:
        tcp = lab.connect()
        port = tcp.getsockname()[1]
        tcp.sendall(web.request("/100m"))
        missing = 5_000_000
        while missing > 0:  # no pause in which the window would close
            missing -= len(tcp.recv(1 << 16))
        abort(tcp)
        until(lambda: not lab.states(backend, port, to=80), 2, "the server's connection is closed")
    seen = begun(packets)
    first = next(at for at, packet in enumerate(seen) if packet.outgoing and packet.flags & RST)
    # the kernel's path delivers in the very call that sends: nothing is under way
    in_flight = any(packet.payload for packet in seen[first:] if not packet.outgoing)
    assert in_flight or lab.in_kernel
    _nothing_is_left(lab)


def test_reset_in_mid_upload(lab: Lab) -> None:
    """The server does not read: what it has not acknowledged yet is on its way before the RST."""
    begun_to_read, ended = threading.Event(), threading.Event()

    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        begun_to_read.set()
        _until_reset(tcp)
        ended.set()

    with serving(lab, serve):
        tcp = lab.connect(to=SCRIPTED)
        tcp.sendall(web.request("/", "Content-Length: 100000000", method="PUT"))
        assert begun_to_read.wait(5)
        for _ in range(20):
            tcp.sendall(bytes(100_000))
        abort(tcp)
        assert ended.wait(5), "the server learns of the reset"
    _nothing_is_left(lab)


def _until_reset(tcp: socket.socket) -> None:
    """Read until the client's reset."""
    with contextlib.suppress(ConnectionResetError):
        while tcp.recv(1 << 16):
            pass
        raise AssertionError("the connection ended as if all were well")


def _nothing_is_left(lab: Lab) -> None:
    for program in ("backend1", "backend2", "balancer"):
        until(lambda: not lab.counters(program)["flows"], 6, f"{program} forgets")  # noqa: B023
