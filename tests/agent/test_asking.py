"""What checks find wrong with servers and bridges: real connections over loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from common.adapters.agent import asking
from common.core.agent_settings import MOST_BODY, BridgeCheck, ServerCheck
from common.core.bridge_health import Entry, encode
from common.core.health import Rhythm
from tests.agent.stage import free_port, response, saying, server, until

RHYTHM = Rhythm(1.0, 0.0)
Answer = Callable[[socket.socket], None]


def checked(port: int, kind: Any = "http", timeout: float = 2.0, **wanted: Any) -> str:
    """What a check of that port says."""
    check = ServerCheck(("t",), kind, "127.0.0.1", port, RHYTHM, timeout, **wanted)

    async def ask() -> str:
        async with asking.session() as http:
            return await asking.server(http, check)

    return asyncio.run(ask())


def silent(connected: socket.socket) -> None:
    """Takes all, and says nothing."""
    while connected.recv(65536):
        pass


def endless(connected: socket.socket) -> None:
    saying(b"HTTP/1.1 200 OK\r\n\r\n")(connected)
    while True:
        connected.sendall(b"x" * 65536)


def dripping(connected: socket.socket) -> None:
    """A header without an end, a byte at a time."""
    saying(b"HTTP/1.1 200 OK\r\nX: ")(connected)
    while True:
        connected.sendall(b"x")
        time.sleep(0.02)


def test_a_server_that_takes_connections_is_well_by_tcp() -> None:
    with server(silent) as port:
        assert checked(port, "tcp") == ""


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_nobody_listening_is_refused(kind: str) -> None:
    assert checked(free_port(), kind) == "connection refused"


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_server_whose_backlog_is_full_is_silent(kind: str) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())  # nobody accepts: no room for others
        second.setblocking(False)
        second.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        assert checked(port, kind, timeout=0.3) == "no answer within 0.3 s"


@pytest.mark.parametrize(
    ("answer", "wanted", "said"),
    [
        (saying(response()), {}, ""),
        (saying(response(status="404 Not Found")), {}, "status 404"),
        (saying(response(status="404 Not Found")), {"status": ((200, 299), (404, 404))}, ""),
        (saying(response()), {"status": ((204, 204),)}, "status 200"),
        (saying(response(b"all is well")), {"body": "is well"}, ""),
        (saying(response(b"all is lost")), {"body": "is well"}, "'is well' is not in the answer"),
        (saying(response(b"", "302 Found", "Location: /elsewhere\r\n")), {}, ""),
        (
            saying(response(b"", "302 Found", "Location: /elsewhere\r\n")),
            {"status": ((200, 299),)},
            "status 302",
        ),
        (saying(b""), {}, "the connection was closed without an answer"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), {}, "no sound HTTP answer"),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000), {}, "no sound HTTP answer"),
        (saying(response(b"short")[:-1]), {"body": "short"}, "no sound HTTP answer"),
        (silent, {"timeout": 0.3}, "no answer within 0.3 s"),
        (dripping, {"timeout": 0.3}, "no answer within 0.3 s"),
        (endless, {}, ""),
        (endless, {"body": "y"}, "'y' is not in the answer"),
        (saying(response(b"x" * MOST_BODY + b"y")), {"body": "y"}, "'y' is not in the answer"),
        (saying(response(b"x" * (MOST_BODY - 1) + b"y")), {"body": "y"}, ""),
    ],
)
def test_by_http_the_answer_decides(answer: Answer, wanted: dict[str, Any], said: str) -> None:
    with server(answer) as port:
        found = checked(port, **wanted)
    assert found.startswith(said) if said else not found, found


def test_a_request_names_the_host_and_the_path_as_they_are_given() -> None:
    heads = []

    def note(connected: socket.socket) -> None:
        heads.append(connected.recv(65536).decode())
        connected.sendall(response())

    with server(note) as port:
        assert checked(port, path="/a%2Fb?c=d", host="www.example.com") == ""
        assert checked(port) == ""
    assert heads[0].startswith("GET /a%2Fb?c=d HTTP/1.1\r\n")
    assert "\r\nHost: www.example.com\r\n" in heads[0]
    assert f"\r\nHost: 127.0.0.1:{port}\r\n" in heads[1]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[int]:
    """The real thing, with a page; its port."""
    port = free_port()
    (tmp_path / "page.html").write_text("it works")
    (tmp_path / "nginx.conf").write_text(
        f"user root; pid {tmp_path}/pid; error_log stderr; daemon off; worker_processes 1;"
        "events {} http { access_log off;"
        f"server {{ listen 127.0.0.1:{port}; root {tmp_path};"
        "location /moved { return 301 /page.html; } location /broken { return 503; } } }"
    )
    command = ["nginx", "-p", str(tmp_path), "-c", "nginx.conf"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until(lambda: not checked(port, "tcp"))
        yield port
        process.terminate()


def test_nginx_is_seen_as_it_is(nginx: int) -> None:
    assert checked(nginx, path="/page.html", body="works", status=((200, 200),)) == ""
    assert checked(nginx, path="/missing") == "status 404"
    assert checked(nginx, path="/broken") == "status 503"
    assert checked(nginx, path="/moved", status=((301, 301),)) == ""


# --- bridges ---

ENTRY = Entry("192.0.2.20", 80, (1, 2), "192.0.2.30:80", opened=7)
HEALTH = json.dumps(encode([ENTRY])).encode()


def asked(port: int, timeout: float = 2.0) -> list[Entry]:
    check = BridgeCheck("127.0.0.1", port, RHYTHM, timeout, ())

    async def ask() -> list[Entry]:
        async with asking.session() as http:
            return await asking.bridge(http, check)

    return asyncio.run(ask())


def test_a_bridge_says_how_its_servers_are() -> None:
    with server(saying(response(HEALTH))) as port:
        assert asked(port) == [ENTRY]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (saying(response(HEALTH, "503 Service Unavailable")), "status 503"),
        (saying(response(b"Hello")), "the answer is not JSON"),
        (saying(response(b"{}")), "the answer lists no backends"),
        (saying(response(b'{"backends": [1]}')), "names a backend without"),
        (saying(response(HEALTH.replace(b"80,", b'"80",', 1))), "whose address, port"),
        (silent, "no answer within 0.3 s"),
        (endless, "longer than|no answer within"),
    ],
)
def test_what_is_no_bridges_answer_is_named(answer: Answer, said: str) -> None:
    with server(answer) as port, pytest.raises(asking.AskError, match=said) as error:
        asked(port, 0.3)
    assert str(error.value).startswith(f"bridge at 127.0.0.1:{port}: ")


# --- by datagrams ---


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """A server of datagrams; gives its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.05)
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    asked, who = listening.recvfrom(2000)
                    said = answer(asked)
                    if said is not None:
                        listening.sendto(said, who)

        thread = threading.Thread(target=run)
        thread.start()
        yield listening.getsockname()[1]
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, ""),
        ({"expect": b"\x12\x34\x81".hex()}, ""),
        ({"expect": b"\x12\x35".hex()}, "the answer begins with 12 34 81 80"),
        ({"match": r"\x81.$"}, ""),
        ({"match": "^x"}, "'^x' is not found in the answer"),
        ({"expect": "1234", "match": "x"}, "'x' is not found in the answer"),
    ],
)
def test_by_udp_the_answer_decides(wanted: dict[str, str], said: str) -> None:
    with answering(lambda asked: asked + b"\x81\x80") as port:
        assert checked(port, "udp", send="1234", **wanted) == said


def test_who_does_not_answer_a_datagram_is_not_well() -> None:
    with answering(lambda _: None) as port:
        assert checked(port, "udp", timeout=0.2, send="00") == "no answer within 0.2 s"


def test_a_closed_port_is_told_at_once() -> None:
    with answering(lambda _: None) as port:
        pass
    began = time.monotonic()
    assert checked(port, "udp", timeout=5.0, send="00") == "connection refused"
    assert time.monotonic() - began < 2


def test_an_answer_of_nothing_is_one() -> None:
    with answering(lambda _: b"") as port:
        assert checked(port, "udp", send="00") == ""
        assert checked(port, "udp", send="00", expect="00") == "the answer begins with nothing"
