"""A handoff that is overtaken on its way to the bridge by what the client sent behind it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import FIN, Packet, capture
from tests.e2e.lab import VIP, Lab
from tests.e2e.network import HANDOFF, Count, misbehaving
from tests.e2e.scripted import PORT, head_of, respond, scripted_service, serving
from tests.e2e.wire import Faults

pytestmark = pytest.mark.root

LATE = 0.03  # seconds that a handoff takes longer; what is lost is sent again after 0.2
BODY = b"y" * 10_000
CONTENT = bytes(range(256)) * 40  # ten kilobytes: an initial window is full with the head

HEAD = web.request("/a", f"Content-Length: {len(CONTENT)}", method="PUT", close=True)
LONG = web.request("/a", "X-Filler: " + "x" * 6000, close=True)
FOLLOWED = {  # what the client sends in one go, the handoff being the first segment of it
    "another request": [web.request("/a"), web.request("/b", close=True)],
    "the rest of the head": [LONG[:1400], LONG[1400:]],
    "content": [HEAD, CONTENT],
    "half-close": [web.request("/a")],
}
SEEN = {  # by the server
    "another request": b"".join(FOLLOWED["another request"]),
    "the rest of the head": LONG,
    "content": HEAD + CONTENT,
    "half-close": FOLLOWED["half-close"][0],
}


class Everything:
    """A server's handler that remembers every byte, and answers each request."""

    def __init__(self) -> None:
        self.seen = b""

    def __call__(self, tcp: socket.socket) -> None:
        while True:
            try:
                head = head_of(tcp)
            except EOFError:
                return
            self.seen += head
            if head.startswith(b"PUT"):
                while len(self.seen) < len(HEAD + CONTENT):
                    self.seen += tcp.recv(65536)
            respond(tcp, BODY)
            if b"Connection: close" in head:
                return


@pytest.fixture(scope="module", autouse=True)
def service(running_lab: Lab) -> Iterator[None]:
    with scripted_service(running_lab):
        yield


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_overtakes_its_handoff_is_not_lost(
    lab: Lab, what: str, report: Callable[[str], None]
) -> None:
    handler, early = Everything(), lab.growth("backend1")
    with (
        serving(lab, handler) as server,
        capture(lab, "backend1") as recorded,
        misbehaving(lab, "balancer to bridge", Faults(hold=1, late=LATE), HANDOFF) as deeds,
        lab.connect(to=(VIP, PORT)) as tcp,
    ):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = tcp.getsockname()[1]
        started = time.monotonic()
        for part in FOLLOWED[what]:
            tcp.sendall(part)
        if what == "half-close":
            tcp.shutdown(socket.SHUT_WR)
        answer = web.rest(tcp)
        seconds = time.monotonic() - started
    overtaking = before_handoff(recorded.packets, port)
    kept = early("early_segments")
    report(f"handoff {deeds['held']}, behind {len(overtaking)} packets; {seconds * 1000:.0f} ms")
    assert answer.count(BODY) == SEEN[what].count(b" HTTP/1.1\r\n")
    assert handler.seen == SEEN[what]
    assert len(server.peers) == 1
    assert deeds["held"] == Count(1, 1)
    assert overtaking
    assert kept == len(overtaking)  # the client may probe for its last segment meanwhile (RFC 8985)
    assert seconds >= LATE


def before_handoff(packets: list[Packet], port: int) -> list[Packet]:
    """The client's packets with data or FIN that came to the bridge before the first handoff."""
    found = []
    for packet in packets:
        if packet.ports == (port, PORT) and not packet.outgoing:
            if 253 in packet.options:
                return found
            if packet.payload or packet.flags & FIN:
                found.append(packet)
    raise AssertionError("no handoff came")
