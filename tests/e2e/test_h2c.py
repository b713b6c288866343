"""HTTP/2 without TLS through the VIP, by curl, nghttp, h2load and Python's h2: placed by the first
request of a connection as in HTTP/1, answered straight by nginx."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import h2c, web
from tests.e2e.capture import capture
from tests.e2e.h2c import BOTH_PORT, HOSTS, PORT, Asking
from tests.e2e.lab import LAB, SERVER1, SERVER2, VIP, Answer, Lab
from tests.e2e.pooled import FIRST, SECOND, in_force, pool, service

pytestmark = pytest.mark.root

PRIOR = "--http2-prior-knowledge"
PATHS = [f"/small/{number}" for number in range(1, 13)]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
ROUTES = """
[[routes]]
host = "first.test"
pool = "first"

[[routes]]
host = "*.second.test"
header = { Cookie = "a=1; b=2" }
pool = "second"
"""
POOLS = pool() + pool("first", FIRST) + pool("second", SECOND)
LARGE_HEADS = "max_head = 65535"


@pytest.fixture(scope="module", autouse=True)
def speaking(running_lab: Lab) -> Iterator[None]:
    """Servers for both versions at the VIP: one pool for all, by path, and what routes say."""
    lab = running_lab
    services = service() + h2c.service(more=LARGE_HEADS) + h2c.service(BOTH_PORT)
    with h2c.nginx(lab), h2c.bridged(lab), in_force(lab, services + ROUTES + POOLS):
        yield


def curl(lab: Lab, path: str, *options: str, port: int = PORT) -> Answer:
    return lab.curl(path, PRIOR, *options, to=f"{VIP}:{port}")


def nginx_log(backend: str) -> Path:
    return LAB / "log" / f"nginx-{backend}.access.log"


def test_a_path_has_the_backend_that_it_has_in_http_1(lab: Lab) -> None:
    growth = lab.growth("balancer")
    in_both = [(lab.curl(path), curl(lab, path)) for path in PATHS]
    for path, (one, two) in zip(PATHS, in_both, strict=True):
        assert (two.status, two.body) == (200, (LAB / "www" / path[1:]).read_bytes())
        assert two.backend == one.backend
    assert {two.backend for _, two in in_both} == set(HOSTS)
    assert growth("handoffs") == 2 * len(PATHS)
    assert '"GET /small/1 HTTP/2.0" 200' in nginx_log(in_both[0][1].backend).read_text()


def test_both_versions_on_one_port(lab: Lab) -> None:
    with h2c.haproxy(lab):
        for path in PATHS:
            one = lab.curl(path, to=f"{VIP}:{BOTH_PORT}")
            two = curl(lab, path, port=BOTH_PORT)
            assert (one.status, two.status) == (200, 200)
            assert one.backend == two.backend == lab.curl(path).backend
        command = ("curl", "-sS", PRIOR, "-w", "%{http_version}", f"http://{VIP}:{BOTH_PORT}/")
        assert lab.run("client", *command) == "2", "it was HTTP/2"


def test_streams_of_one_connection_stay_together(lab: Lab) -> None:
    """nghttp asks for all at once, on streams of their own; what the first asks for decides."""
    backend = lab.curl(PATHS[0]).backend
    before = {name: nginx_log(name).stat().st_size for name in HOSTS}
    growth = lab.growth("balancer")
    urls = [f"http://{VIP}:{PORT}{path}" for path in PATHS]
    told = lab.run("client", "nghttp", "-nv", *urls)
    assert len(re.findall(r":status: 200", told)) == len(PATHS)
    assert set(re.findall(r"x-backend: (\w+)", told)) == {backend}
    assert growth("handoffs") == 1
    with nginx_log(backend).open() as log:
        log.seek(before[backend])
        assert len(re.findall("GET /small/[0-9]+ HTTP/2.0", log.read())) == len(PATHS)


@pytest.mark.parametrize("options", [["--continuation"], ["-b", "255"], ["--no-dep"]])
def test_frames_as_nghttp_varies_them(lab: Lab, options: list[str]) -> None:
    """CONTINUATION behind 16 kB of HEADERS; padding; no priorities."""
    url = f"http://{VIP}:{PORT}/1k"
    told = lab.run("client", "nghttp", "-nv", *options, url)
    assert ":status: 200" in told
    assert f"x-backend: {lab.curl('/1k').backend}" in told


def test_routes_by_authority_and_split_cookies(lab: Lab) -> None:
    for host, backend in (("first.test", "backend1"), ("FIRST.test.:8082", "backend1")):
        assert {curl(lab, path, "-H", f"Host: {host}").backend for path in PATHS} == {backend}
    for path in PATHS[:4]:
        with lab.connect(to=(VIP, PORT)) as tcp:
            asking = Asking(tcp)
            cookies = ("cookie", "a=1"), ("cookie", "b=2")
            tcp.sendall(asking.ask(path, *cookies, host="h2.second.test"))
            assert asking.read()[0].backend == "backend2"


def test_a_head_in_many_segments(lab: Lab) -> None:
    """Cut anywhere, with and without time for the balancer to acknowledge the parts."""
    for size, pause in ((1, 0.0), (7, 0.0), (9, 0.06), (40, 0.06)):
        with lab.connect(to=(VIP, PORT)) as tcp:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asking = Asking(tcp)
            data = asking.ask("/100k", ("x-more", "m" * 50))
            for at in range(0, len(data), size):
                tcp.sendall(data[at : at + size])
                time.sleep(pause)  # longer than it waits for more
            (answer,) = asking.read()
            assert answer.body == (LAB / "www" / "100k").read_bytes()
            assert answer.backend == lab.curl("/100k", "-I").backend


def test_a_connection_goes_on(lab: Lab) -> None:
    """Request after request, with frames of its own from either side in between."""
    with lab.connect(to=(VIP, PORT)) as tcp:
        asking = Asking(tcp)
        for path in PATHS:
            tcp.sendall(asking.ask(path))
            answer = asking.read()[-1]
            assert answer.body == (LAB / "www" / path[1:]).read_bytes()
            asking.protocol.ping(b"12345678")
        assert len({answer.backend for answer in asking.answers.values()}) == 1


def test_responses_do_not_pass_the_balancer(lab: Lab) -> None:
    with lab.no_offloads(), capture(lab, "balancer") as packets:
        answer = curl(lab, "/1m")
    assert answer.body == (LAB / "www" / "1m").read_bytes()
    mine = [packet for packet in packets.packets if answer.port in packet.ports]
    assert not [packet for packet in mine if packet.source in (SERVER1, SERVER2)]
    assert not [packet for packet in mine if packet.source == VIP and packet.payload]
    assert sum(len(packet.data) for packet in mine) < len(answer.body) / 10


def test_a_server_that_is_not_there(lab: Lab) -> None:
    """The next one is asked; where there is none, the client is reset."""
    (path, *_) = (path for path in PATHS if lab.curl(path).backend == "backend2")
    lab.script("stop", "nginx-backend2")
    try:
        growth = lab.growth("balancer")
        answer = curl(lab, path)
        assert (answer.status, answer.backend) == (200, "backend1")
        assert growth("redispatched") >= 1
        ask = (f"http://{VIP}:{PORT}{path}", "-H", "Host: a.second.test", "-b", "a=1; b=2")
        alone = lab.result("client", "curl", "-sS", "-m", "20", PRIOR, *ask)
        assert (alone.returncode, alone.stdout) == (56, ""), alone.stderr  # reset
        assert growth("not_served") + growth("backend_refused") >= 2
        assert growth("replied_503") == 0
    finally:
        lab.script("start", "nginx-backend2")


def test_h2load(lab: Lab) -> None:
    url = f"http://{VIP}:{PORT}/1k"
    told = lab.run("client", "h2load", "-n", "2000", "-c", "20", "-m", "10", url)
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told


BROKEN = {
    "no preface": (PREFACE[:16] + b"GET / HTTP/1.1\r\n\r\n", "http2_preface"),
    "no SETTINGS": (PREFACE + b"\0\0\4\x08\0\0\0\0\0\0\0\0\1", "http2_no_settings"),
    "DATA": (PREFACE + SETTINGS + b"\0\0\1\0\1\0\0\0\1x", "http2_bad_frame"),
    "an even stream": (PREFACE + SETTINGS + b"\0\0\3\1\5\0\0\0\2\x82\x86\x84", "http2_bad_stream"),
    "HPACK": (PREFACE + SETTINGS + b"\0\0\1\1\5\0\0\0\1\x80", "http2_bad_hpack"),
    "no path": (PREFACE + SETTINGS + b"\0\0\2\1\5\0\0\0\1\x82\x86", "http2_pseudo_missing"),
    "too long": (PREFACE + SETTINGS + b"\xff\0\0\1\5\0\0\0\1", "http2_frame_too_long"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_beginning_is_reset(lab: Lab, name: str) -> None:
    data, reason = BROKEN[name]
    growth = lab.growth("balancer")
    with lab.connect(to=(VIP, PORT)) as tcp:
        tcp.sendall(data)
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)
    assert growth.reaches(reason)
    assert growth("handoffs") == 0


def test_it_is_never_answered_in_http_1(lab: Lab) -> None:
    """Over a limit HTTP/1 is told 429, HTTP/2 is reset."""
    limit = "\n[pools.limit]\nrate = 0.01\nburst = 1\n"
    with in_force(lab, service() + h2c.service() + pool(more=limit)):
        assert curl(lab, "/1k").status == 200
        growth = lab.growth("balancer")
        with lab.connect(to=(VIP, PORT)) as tcp:
            tcp.sendall(Asking(tcp).ask("/1k"))
            with pytest.raises(ConnectionResetError):
                tcp.recv(1)
        assert growth.reaches("over_rate_limit")
        assert growth("replied_429") == 0
        with lab.connect() as tcp:
            tcp.sendall(web.request("/1k"))
            assert web.response(tcp).status == 429
