"""Servers that speak HTTP/2 without TLS behind the VIP, and a client that sends what it is told."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from tests.e2e.lab import BRIDGE1, BRIDGE2, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.pooled import extended

PORT = 8082  # nginx: HTTP/2 alone, as long as it is older than 1.25
BOTH_PORT = 8083  # HAProxy: both on one port
HOSTS = {"backend1": (BRIDGE1, SERVER1), "backend2": (BRIDGE2, SERVER2)}


def service(port: int = PORT, pool: str = "p", more: str = "") -> str:
    """One more at the lab's VIP."""
    return f"""
[[services]]
name = "h2c-{port}"
vip = "{VIP}"
port = {port}
dscp = 1
pool = "{pool}"
{more}
"""


@contextmanager
def bridged(lab: Lab) -> Iterator[None]:
    """Both bridges know the ports."""
    with ExitStack() as stack:
        for host, (bridge, server) in HOSTS.items():
            entries = "".join(
                f'\n[[backends]]\naddress = "{bridge}"\nport = {port}\nserver = "{server}:{port}"\n'
                for port in (PORT, BOTH_PORT)
            )
            stack.enter_context(extended(lab, host, entries))
        yield


@contextmanager
def nginx(lab: Lab) -> Iterator[None]:
    """The lab's servers listen for HTTP/2, too."""

    def listening(text: str) -> str:
        listen = next(line for line in text.splitlines() if line.strip().startswith("listen "))
        address = listen.split()[1].partition(":")[0]
        return text.replace(listen, f"{listen}\n        listen {address}:{PORT} http2;")

    with lab.configured(nginx_backend1=listening, nginx_backend2=listening):
        yield


@contextmanager
def haproxy(lab: Lab) -> Iterator[None]:
    """Servers that take either version on one port, and answer with their name."""
    with ExitStack() as stack:
        for host, (_, server) in HOSTS.items():
            file = lab.directory / "run" / f"haproxy-{host}.conf"
            file.write_text(
                "defaults\n  mode http\n  timeout client 9s\n  timeout connect 9s\n"
                f"  timeout server 9s\nfrontend both\n  bind {server}:{BOTH_PORT}\n"
                f"  http-request return status 200 hdr X-Backend {host}\n"
            )
            command = lab.command(host, "haproxy", "-db", "-f", str(file))
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            until(lambda host=host: _listens(lab, host), 10, f"HAProxy listens on {host}")
        yield


def _listens(lab: Lab, host: str) -> bool:
    return f":{BOTH_PORT} " in lab.run(host, "ss", "-Htln")


@dataclass
class Answer:
    """What came on one stream."""

    status: int = 0
    backend: str = ""
    body: bytes = b""
    ended: bool = False


@dataclass
class Asking:
    """The client's side of one connection."""

    tcp: socket.socket
    protocol: H2Connection = field(
        default_factory=lambda: H2Connection(H2Configuration(client_side=True))
    )
    answers: dict[int, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.protocol.initiate_connection()

    def ask(self, path: str, *headers: tuple[str, str], host: str = VIP) -> bytes:
        """The bytes that ask for a path on a stream of its own, with what is to come before."""
        stream = self.protocol.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
        self.protocol.send_headers(stream, [*pseudo, *headers], end_stream=True)
        self.answers[stream] = Answer()
        data: bytes = self.protocol.data_to_send()
        return data

    def read(self) -> list[Answer]:
        """The answers to all that was asked, in order, once they are whole."""
        while not all(answer.ended for answer in self.answers.values()):
            data = self.tcp.recv(65536)
            assert data, "the connection ended within a response"
            for event in self.protocol.receive_data(data):
                self._take(event)
            if back := self.protocol.data_to_send():
                self.tcp.sendall(back)
        return list(self.answers.values())

    def _take(self, event: object) -> None:
        if isinstance(event, ResponseReceived):
            found = dict(event.headers)
            text = {_text(name): _text(value) for name, value in found.items()}
            answer = self.answers[event.stream_id]
            answer.status, answer.backend = int(text[":status"]), text.get("x-backend", "")
        elif isinstance(event, DataReceived):
            self.answers[event.stream_id].body += event.data
            self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].ended = True


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
