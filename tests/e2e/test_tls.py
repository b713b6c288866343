"""TLS by name: nginx's certificates through the VIP, chosen by what a client says in the clear."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL

from tests.e2e.capture import SYN, capture
from tests.e2e.controlled import client, seen
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.pooled import BOTH, FIRST, SECOND, extended, given, pool
from tests.e2e.web import DRIBBLE_PAUSE
from tests.hellos.recorded import HELLOS
from tests.unit.tls_model import Hello, contents, extension, records, sni

pytestmark = pytest.mark.root

PORT, SHORT = 443, 8443
WHERE = {"a.example": "backend1", "b.example": "backend2"}  # by routes; other names by their hash


def entry(bridge: str, server: str) -> str:
    return f'\n[[backends]]\naddress = "{bridge}"\nport = {PORT}\nserver = "{server}:{PORT}"\n'


def service(name: str, port: int, more: str = "") -> str:
    return f"""
[[services]]
name = "{name}"
vip = "{VIP}"
port = {port}
dscp = 1
inspect = "tls"
pool = "names"
{more}
"""


ROUTES = """
[[routes]]
alpn = ["acme-tls/1", "x"]
pool = "b.example"

[[routes]]
host = "a.example"
service = "names"
pool = "a.example"

[[routes]]
host = ["b.example", "*.b.example"]
service = "names"
pool = "b.example"
"""
CONFIGURATION = (
    service("names", PORT)
    + service("short", SHORT, "max_head = 2048")
    + ROUTES
    + pool("names", BOTH)
    + pool("a.example", FIRST)
    + pool("b.example", SECOND)
)


@pytest.fixture(scope="module", autouse=True)
def by_name(running_lab: Lab) -> Iterator[None]:
    with ExitStack() as stack:
        for bridge, text in (("backend1", (BRIDGE1, SERVER1)), ("backend2", (BRIDGE2, SERVER2))):
            stack.enter_context(extended(running_lab, bridge, entry(*text)))
        stack.enter_context(extended(running_lab, "balancer", CONFIGURATION))
        yield


@dataclass(frozen=True)
class Got:
    status: int
    version: str
    backend: str
    body: bytes


def curl(lab: Lab, name: str, *options: str, path: str = "/") -> Got:
    """By curl, on a connection of its own; without more the certificate is not looked at."""
    form = "\n%{http_code} %{http_version} %header{x-backend}"
    resolve = ["--resolve", f"{name}:{PORT}:{VIP}", "-k", "-sS", "-m", "10", "-w", form]
    done = lab.run("client", "curl", *resolve, *options, f"https://{name}{path}")
    body, _, line = done.rpartition("\n")
    status, version, backend = line.split()
    return Got(int(status), version, backend, body.encode())


def file_of(lab: Lab, backend: str, name: str) -> Path:
    """A backend's certificate for a name."""
    return lab.directory / "etc" / f"tls-{backend}" / f"{name}.crt"


# --- real clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_the_certificate_is_the_backends(lab: Lab, version: str, http: str) -> None:
    """Each backend has its own for a name, and curl takes no other."""
    for name, backend in WHERE.items():
        only = ["--no-insecure", "--cacert", str(file_of(lab, backend, name))]
        versions = [f"--tlsv{version}", "--tls-max", version]
        got = curl(lab, name, *only, *versions, http)
        assert (got.status, got.backend) == (200, backend)
        assert got.version == http.removeprefix("--http").removesuffix(".0")
        assert got.body == f"Hello from {backend} as {name}\n".encode()


def test_another_backends_certificate_would_be_refused(lab: Lab) -> None:
    """Else the test above shows nothing."""
    other = str(file_of(lab, "backend2", "a.example"))
    resolve = ["--resolve", f"a.example:{PORT}:{VIP}", "--cacert", other]
    assert lab.result("client", "curl", "-sS", *resolve, "https://a.example/").returncode == 60


def test_a_name_keeps_its_backend(lab: Lab) -> None:
    """And it is the one that `explain` says."""
    found = {}
    with client(lab) as asking:
        for number in range(8):
            name = f"n{number}.example"
            told = asking.ask("explain", sni=name, source=CLIENT, service="names")
            assert {curl(lab, name).backend, curl(lab, name.upper()).backend} == {told["backend"]}
            found[name] = told["backend"]
    assert set(found.values()) == {"backend1", "backend2"}


def test_without_a_name_the_address_decides(lab: Lab) -> None:
    told = seen(lab, "balancer", "explain", "--service", "names", "--source", CLIENT)
    assert (told["key"], told["missing"]) == (f"source={CLIENT}", ["sni"])
    assert {curl(lab, VIP).backend for _ in range(3)} == {told["backend"]}


def test_a_route_by_protocol(lab: Lab) -> None:
    words = "explain --service names --sni a.example --alpn y --alpn x"
    told = seen(lab, "balancer", *words.split())
    assert (told["route"], told["backend"]) == ("alpn=acme-tls/1,x", "backend2")
    before = given(lab)
    with Session(lab, "a.example", [b"acme-tls/1", b"http/1.1"]) as session:
        session.shake()
    after = given(lab)
    assert after["b.example", "backend2"] == before["b.example", "backend2"] + 1


# --- hellos in pieces -----------------------------------------------------------------------------


class Session:
    """A client of today's OpenSSL, which has a post-quantum key share, over a plain socket."""

    def __init__(self, lab: Lab, name: str, protocols: list[bytes] | None = None) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos(protocols or [b"http/1.1"])
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(name.encode())
        self.tls.set_connect_state()
        self.tcp = lab.connect(to=(VIP, PORT))
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.tcp.close()

    def hello(self) -> bytes:
        with pytest.raises(SSL.WantReadError):
            self.tls.do_handshake()
        return self.tls.bio_read(65536)

    def shake(self, *pieces: bytes, pause: float = 0.0) -> None:
        """The handshake, of which the first flight is these ``pieces``."""
        for number, piece in enumerate(pieces or [self.hello()]):
            time.sleep(pause if number else 0)
            self.tcp.sendall(piece)
        while True:
            self.tls.bio_write(self.tcp.recv(65536))
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                continue
            self._flush()
            return

    def get(self, path: str) -> bytes:
        """The whole answer to a request by HTTP/1.1."""
        self.tls.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        self._flush()
        answer = b""
        while True:
            try:
                answer += self.tls.recv(65536)
            except SSL.WantReadError:
                if not (data := self.tcp.recv(65536)):
                    return answer
                self.tls.bio_write(data)
            except (SSL.ZeroReturnError, SSL.SysCallError):
                return answer

    def _flush(self) -> None:
        try:
            while True:
                self.tcp.sendall(self.tls.bio_read(65536))
        except SSL.WantReadError:
            return


@pytest.mark.parametrize("name", WHERE)
@pytest.mark.parametrize("pause", [0.0, DRIBBLE_PAUSE])
@pytest.mark.parametrize("cut", ["as it is", "segments", "records", "both"])
def test_a_hello_in_pieces(lab: Lab, name: str, pause: float, cut: str) -> None:
    """With pauses, the balancer acknowledges its beginning before it knows where it is to go."""
    growth = lab.growth("balancer")
    with Session(lab, name) as session:
        hello = session.hello()
        assert len(hello) > 1460, "a post-quantum key share"
        if cut in ("records", "both"):
            hello = records(contents(hello), [hello.index(name.encode()) + 3])
        places = [0, 3, 700, len(hello)] if cut in ("segments", "both") else [0, len(hello)]
        pieces = [hello[a:b] for a, b in pairwise(places)]
        session.shake(*pieces, pause=pause)
        answer = session.get("/100k")
        certificate = session.tls.get_peer_certificate(as_cryptography=True)
    owned = pause and len(pieces) > 1
    assert bool(growth("heads_owned")) == bool(owned)
    assert certificate == load_pem_x509_certificate(file_of(lab, WHERE[name], name).read_bytes())
    assert f"\r\nX-Backend: {WHERE[name]}\r\n".encode() in answer
    assert answer.endswith((lab.directory / "www" / "100k").read_bytes())


@pytest.mark.parametrize("browser", ["firefox", "chromium"])
def test_encrypted_client_hello_goes_by_the_outer_name(lab: Lab, browser: str) -> None:
    """A browser's hello, with GREASE in the place of the inner one, is answered by the server."""
    before = given(lab)
    with lab.connect(to=(VIP, PORT)) as tcp:
        tcp.sendall(HELLOS[browser])
        answer = tcp.recv(65536)
    assert (answer[0], answer[5]) == (22, 2), "a ServerHello"
    assert given(lab)["a.example", "backend1"] == before["a.example", "backend1"] + 1


# --- what is refused ------------------------------------------------------------------------------


def is_reset(tcp: socket.socket, seconds: float = 5.0) -> None:
    tcp.settimeout(seconds)
    with pytest.raises(ConnectionResetError):
        tcp.recv(1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "plain_http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "plain_http"),
        (b"SSH-2.0-client\r\n", "not_tls"),
        (b"\x15\3\1\0\2\2\x28", "tls_alert"),
        (b"\x17\3\3\0\1?", "tls_record_type"),
        (b"\x16\3\1\x40\1", "tls_record_length"),
        (b"\x80\x2e\1\3\1", "sslv2_hello"),
        (HELLOS["openssl-address"], "bad_server_name"),
        (bytes(Hello([sni(b"a.example"), sni(b"b.example")])), "repeated_extension"),
        (b"\x16\3\1\x10\0\1\0\xff\xfc", "head_too_long"),
    ],
)
def test_what_is_no_hello_is_reset_and_counted(lab: Lab, data: bytes, reason: str) -> None:
    growth = lab.growth("balancer")
    with lab.connect(to=(VIP, PORT)) as tcp:
        tcp.sendall(data)
        is_reset(tcp)
    assert growth.reaches(reason)


def test_a_hello_that_never_ends_is_reset(lab: Lab) -> None:
    """At the bound, to which it comes in tiny records."""
    growth = lab.growth("balancer")
    endless = records(Hello([extension(21, bytes(1900))]).message(), range(1, 1900, 5))
    with lab.connect(to=(VIP, SHORT)) as tcp:
        for at in range(0, 2500, 500):
            tcp.sendall(endless[at : at + 500])
        is_reset(tcp)
    assert growth.reaches("head_too_long")


# --- the way back ---------------------------------------------------------------------------------


def test_nothing_of_the_answer_passes_the_balancer(lab: Lab) -> None:
    with lab.no_offloads(), capture(lab, "balancer") as at_balancer:
        with Session(lab, "a.example") as session:
            port = session.tcp.getsockname()[1]
            session.shake()
            assert len(session.get("/1m")) > 1 << 20
        until(lambda: lab.closed(port), 5, "the last packet has passed")
        packets = [packet for packet in at_balancer.packets if port in packet.ports]
    assert not any(packet.source in (SERVER1, BRIDGE1) for packet in packets)
    assert [packet.flags & SYN for packet in packets if packet.source == VIP] == [SYN]
    assert any(packet.destination == BRIDGE1 for packet in packets)
