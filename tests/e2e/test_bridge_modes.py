"""Ways to configure a bridge: several servers on its host, held handshakes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.e2e import web
from tests.e2e.lab import CLIENT, SERVER1, Lab
from tests.e2e.raw import raw_sender
from tests.e2e.scripted import echo_head, serving

pytestmark = pytest.mark.root

BRIDGE3 = "192.168.33.22"
SECOND_SERVER = (SERVER1, 8082)


def extended(addition: str) -> Callable[[str], str]:
    return lambda text: text + addition


def test_second_server_behind_a_second_bridge_address(lab: Lab) -> None:
    host, port = SECOND_SERVER
    entry = f'\n[[backends]]\naddress = "{BRIDGE3}"\nport = 80\nserver = "{host}:{port}"\n'
    target = f'\n[[services.backends]]\nname = "second"\nbridge = "{BRIDGE3}"\n'
    with (
        lab.address("backend1", BRIDGE3),
        lab.configured(backend1=extended(entry), balancer=extended(target)),
        serving(lab, echo_head, address=SECOND_SERVER) as second,
    ):
        answers = [_fetch(lab, f"/shared-{number}") for number in range(60)]
    backends = [_answered_by(answer) for answer in answers]
    assert {backend: backends.count(backend) > 5 for backend in backends} == {
        "backend1": True,
        "backend2": True,
        "second": True,
    }
    assert {peer[0] for peer in second.peers} == {CLIENT}
    assert len(second.peers) == backends.count("second")


@pytest.mark.parametrize(("held", "least", "most"), [("on", 0.1, 0.5), ("off", 0, 0.08)])
def test_hold_handshake(lab: Lab, held: str, least: float, most: float) -> None:
    """A client whose handshake takes 120 ms: its round trip is what the server waits, or not."""

    def change(text: str) -> str:
        return text.replace("port = 80\n", f'port = 80\nhold_handshake = "{held}"\n')

    path = lab.path_for("1k", "backend1")
    with lab.configured(backend1=change), raw_sender(lab) as sender:
        connection = sender.open()
        time.sleep(0.12)  # the round trip
        connection.send()
        asked = time.monotonic()
        connection.send(web.request(path, close=True), "PA")
        sender.answer(connection.port, lambda packet: b" 200 OK" in packet.payload)
        waited = time.monotonic() - asked
        connection.send(flags="R")
    assert least <= waited < most


def _fetch(lab: Lab, path: str) -> bytes:
    with lab.connect() as tcp:
        tcp.sendall(web.request(path, close=True))
        tcp.shutdown(socket.SHUT_WR)
        return web.rest(tcp)


def _answered_by(answer: bytes) -> str:
    for name in ("backend1", "backend2"):
        if f"X-Backend: {name}\r\n".encode() in answer:
            return name
    assert b"GET /shared-" in answer  # the head, come back
    return "second"
