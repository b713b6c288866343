"""Requests of every form that HTTP/1.x has, by curl: answered as by the server itself."""

from __future__ import annotations

import hashlib
import socket

import pytest

from tests.e2e import web
from tests.e2e.lab import CLIENT, LAB, SERVER1, SERVER2, VIP, Answer, Lab
from tests.e2e.scripted import PORT, head_of, respond, serving

pytestmark = pytest.mark.root

SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
FORMS = {
    "HTTP/1.0": b"GET /1k HTTP/1.0\r\nHost: www.example\r\n\r\n",
    "HTTP/1.0 without Host": b"GET /1k HTTP/1.0\r\n\r\n",
    "HTTP/1.0 kept": b"GET /1k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 without Host": b"GET /1k HTTP/1.1\r\nConnection: close\r\n\r\n",
    "absolute": b"GET http://www.example/1k HTTP/1.1\r\nHost: www.example\r\n\r\n",
    "absolute without path": b"GET http://www.example HTTP/1.1\r\nHost: www.example\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: www.example\r\n\r\n",
    "authority": b"CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n\r\n",
    "unknown method": b"BREW /1k HTTP/1.1\r\nHost: www.example\r\n\r\n",
    "LF alone": b"GET /1k HTTP/1.1\nHost: www.example\n\n",
    "empty line before": b"\r\nGET /1k HTTP/1.1\r\nHost: www.example\r\n\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_is_answered_as_by_the_server(lab: Lab, form: str) -> None:
    ask = FORMS[form]
    with lab.connect() as tcp:
        answer = _answer(tcp, ask)
    backend = next(name for name in SERVERS if f"X-Backend: {name}".encode() in answer)
    with lab.connect("client2", to=(SERVERS[backend], 80)) as tcp:
        assert _undated(answer) == _undated(_answer(tcp, ask))


def test_absolute_form_goes_where_its_path_does(lab: Lab) -> None:
    """As a client does that takes the VIP for a proxy."""
    for number in range(1, 9):
        path = f"/small/{number}"
        direct, proxied = (
            lab.curl(path),
            lab.curl(path, *_proxy(f"http://{VIP}:80"), to="www.example"),
        )
        assert (proxied.status, proxied.body) == (200, (LAB / "www" / path[1:]).read_bytes())
        assert proxied.backend == direct.backend


@pytest.mark.parametrize("form", ["OPTIONS *", "CONNECT {}.example:443"])
def test_forms_without_a_path_have_a_backend_of_their_own(lab: Lab, form: str) -> None:
    """All of `*` have the same, each authority has its own."""
    chosen = set()
    for number in range(12):
        backends = set()
        for _ in range(2):
            with lab.connect() as tcp:
                answer = _answer(tcp, f"{form.format(number)} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            backends |= {name for name in SERVERS if f"X-Backend: {name}".encode() in answer}
        assert len(backends) == 1
        chosen |= backends
    assert len(chosen) == (1 if "*" in form else 2)


def test_http_1_0_by_curl(lab: Lab) -> None:
    body = (LAB / "www" / "1m").read_bytes()
    for options in ([], ["-H", "Host:"]):
        answer = lab.curl("/1m", "--http1.0", *options)
        assert (answer.status, answer.body) == (200, body)


def test_tunnel_by_connect(lab: Lab, scripted: None) -> None:
    """What a server makes a tunnel of stays one: curl's own request is inside."""
    heads: list[bytes] = []

    def tunnel(tcp: socket.socket) -> None:
        heads.append(head_of(tcp))
        tcp.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        heads.append(head_of(tcp))
        respond(tcp, b"through the tunnel")
        assert tcp.recv(1) == b""

    with serving(lab, tunnel) as server:
        answer = lab.curl("/inside", "-p", *_proxy(f"http://{VIP}:{PORT}"), to="www.example:8080")
        assert (answer.status, answer.body) == (200, b"through the tunnel")
        assert server.peers == [(CLIENT, answer.port)]
    assert heads[0].startswith(b"CONNECT www.example:8080 HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET /inside HTTP/1.1\r\n")


def test_expect_100_continue(lab: Lab) -> None:
    """curl would wait a minute for the server's word to go on; its head has several segments."""
    source, uploaded = LAB / "www" / "20m", LAB / "www" / "upload" / "expected"
    options = [
        "-i", "-T", str(source), "-H", "Expect: 100-continue", "--expect100-timeout", "60",
        "-H", f"X-Large: {'l' * 8000}", "-H", "Host: www.example",
    ]  # fmt: skip
    answers: list[Answer] = []
    try:
        for host in ("client", "client2"):
            uploaded.unlink(missing_ok=True)
            to = SERVERS[answers[0].backend] if answers else VIP
            answers.append(lab.curl("/upload/expected", *options, host=host, to=to))
            assert _digest(uploaded.read_bytes()) == _digest(source.read_bytes())
    finally:
        uploaded.unlink(missing_ok=True)
    through, direct = answers
    assert through.body.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n")
    assert through.seconds < 30, "it did not wait in vain"
    assert _undated(through.body) == _undated(direct.body)


def _proxy(address: str) -> tuple[str, ...]:
    """What makes curl use a proxy although the lab's environment says that it has none."""
    return "--proxy", address, "--noproxy", ""


def _answer(tcp: socket.socket, ask: bytes) -> bytes:
    """The answer up to the connection's end, which this side ends once an answer has begun."""
    tcp.sendall(ask)
    begun = tcp.recv(1 << 16)
    tcp.shutdown(socket.SHUT_WR)
    return begun + web.rest(tcp)


def _undated(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
