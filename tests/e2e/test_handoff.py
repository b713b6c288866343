"""The packets that hand a connection over, and the answers to them: lost, and come twice.

Whatever happens to them, the client gets its response and the server has the request once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.lab import SERVER1, VIP, Lab, until
from tests.e2e.network import HANDOFF, Count, misbehaving, wire
from tests.e2e.scripted import PORT, head_of, respond, scripted_service, serving
from tests.e2e.wire import Faults

pytestmark = pytest.mark.root

BODY = b"y" * 100_000
PAUSE = 0.1  # seconds; the balancer acknowledges part of a request line after 0.04
OWN_PORT = 61_099  # which no kernel gives: of those it gives, any may be in TIME-WAIT elsewhere


@dataclass(frozen=True)
class Answered:
    """``port`` was the client's; ``seconds`` from the request's end to the response's."""

    port: int
    seconds: float


class Requests:
    """A server's handler that remembers what it had."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def __call__(self, tcp: socket.socket) -> None:
        self.heads.append(head_of(tcp))
        respond(tcp, BODY)


@pytest.fixture(scope="module", autouse=True)
def service(running_lab: Lab) -> Iterator[None]:
    with scripted_service(running_lab):
        yield


@pytest.fixture
def once(lab: Lab) -> Iterator[None]:
    """A server; the test fails unless exactly one request comes, on one connection."""
    handler = Requests()
    with serving(lab, handler) as server:
        yield
    assert handler.heads == [REQUEST]
    assert len(server.peers) == 1


REQUEST = web.request("/once", close=True)
# What the client sends in which parts: a whole request stays its own to repeat, of one in parts the
# balancer acknowledges the first and repeats it itself.
WHOLE, PARTS = [REQUEST], [REQUEST[:8], REQUEST[8:]]
BOTH = pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["whole request", "in parts"])


def ask(lab: Lab, parts: list[bytes], port: int = 0, ending: bytes = BODY) -> Answered:
    """Send a request and judge the response, by how it ends."""
    with lab.connect(to=(VIP, PORT), port=port) as tcp:
        port = tcp.getsockname()[1]
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts[:-1]:
            tcp.sendall(part)
            time.sleep(PAUSE)
        started = time.monotonic()
        tcp.sendall(parts[-1])
        answer = web.rest(tcp)
        seconds = time.monotonic() - started
    assert answer.endswith(b"\r\n\r\n" + ending)
    return Answered(port, seconds)


@BOTH
@pytest.mark.parametrize("copies", [1, 4])
def test_handoff_lost(
    lab: Lab, once: None, parts: list[bytes], copies: int, report: Callable[[str], None]
) -> None:
    """The first copies do not arrive; it is sent again after 0.2 seconds, 0.4, 0.8, 1.6: by the
    client, or by the balancer and then without the client's help."""
    repeated = lab.growth("balancer")
    with misbehaving(lab, "balancer to bridge", Faults(lose_first=copies), HANDOFF) as deeds:
        seconds = ask(lab, parts).seconds
        assert repeated("handoffs_repeated") == copies
    report(f"lost: balancer to bridge {deeds['lost']}; answered after {seconds:.2f} s")
    assert deeds["lost"] == Count(copies, copies)
    assert deeds["passed"] == Count(1, 1)
    assert seconds > 0.15 * copies, "it was not the handoff that was lost"


@BOTH
@pytest.mark.parametrize("late", [0.0, 1.0], ids=["at once", "after the end"])
def test_handoff_twice(
    lab: Lab, once: None, parts: list[bytes], late: float, report: Callable[[str], None]
) -> None:
    """The bridge recognises it, also when the connection is over."""
    faults = Faults(double=1, late=late)
    again = lab.growth("backend1")
    with (
        capture(lab, "backend1") as recorded,
        misbehaving(lab, "balancer to bridge", faults, HANDOFF) as deeds,
    ):
        port = ask(lab, parts).port
        seen = ("handoffs_again", "handoff_again")  # of a live connection, and of one that is over
        until(lambda: sum(map(again, seen)), 3, "the bridge sees it again")
    report(f"doubled: balancer to bridge {deeds['doubled']}, {late} s late")
    assert deeds["doubled"] == deeds["passed"] == Count(1, 1)
    first, second = (packet for packet in recorded.packets if is_handoff(packet, port))
    assert first.data == second.data


def test_acceptance_lost(lab: Lab, once: None) -> None:
    """The bridge's answer to a handoff whose bytes the balancer owns: it asks until it has one."""
    repeated, again = lab.growth("balancer"), lab.growth("backend1")
    with misbehaving(lab, "bridge to balancer", Faults(lose_first=2), HANDOFF) as deeds:
        ask(lab, PARTS)
        until(lambda: repeated("handoffs_repeated"), 3, "the handoff is sent again")
        until(lambda: again("handoffs_again"), 3, "the bridge answers again")
    assert deeds["lost"] == Count(2, 2)  # the acceptance and, the response being short, the end
    assert deeds["passed"] == Count(1, 1)


def test_end_lost(lab: Lab) -> None:
    """The balancer, not told that a connection is over, takes the next one of the same port."""
    handler = Requests()
    replaced = lab.growth("balancer")
    with (
        serving(lab, handler) as server,
        misbehaving(lab, "bridge to balancer", Faults(lose_first=1), HANDOFF) as deeds,
    ):
        ask(lab, WHOLE, OWN_PORT)
        until(lambda: lab.closed(OWN_PORT), 2, "the connection is over")
        lab.counters("backend1")  # it says so at once
        ask(lab, WHOLE, OWN_PORT)
    assert deeds["lost"] == Count(1, 1)
    assert replaced("flows_replaced") == 1
    assert handler.heads == [REQUEST] * 2
    assert len(server.peers) == 2


@BOTH
def test_refusal_lost(lab: Lab, parts: list[bytes]) -> None:
    """No server: the client learns it although the bridge's word for it was lost."""
    refused, again = lab.growth("balancer"), lab.growth("backend1")
    with misbehaving(lab, "bridge to balancer", Faults(lose_first=1), HANDOFF) as deeds:
        ask(lab, parts, ending=b"")  # a 503 of the balancer's
    assert deeds["lost"] == Count(1, 1)
    assert refused("backend_refused") == 4, "of four attempts"
    assert again("handoff_again") == 1, "the first refusal was given again, without a question"
    assert again("backend_refused") == 4


@BOTH
@pytest.mark.parametrize(
    ("lost", "least", "most"),
    [("--syn", 0.12, 0.9), ("! --syn", 0.15, 0.9)],
    ids=["SYN", "request"],
)
def test_server_connection_lost(
    lab: Lab,
    once: None,
    parts: list[bytes],
    lost: str,
    least: float,
    most: float,
    report: Callable[[str], None],
) -> None:
    """Between bridge and server: the SYN, sent again after a seventh of a second; and the request,
    which client or bridge, whose it is, repeat after 0.2 seconds."""
    rule = f"INPUT -i lo -p tcp -d {SERVER1} --dport {PORT} {lost}"
    with wire(lab, "backend1", [rule], Faults(lose_first=1)) as deeds:
        seconds = ask(lab, parts).seconds
    report(f"lost: bridge to server, over lo, {deeds['lost']}; answered after {seconds:.2f} s")
    assert deeds["lost"].packets == 1
    assert least < seconds < most


def is_handoff(packet: Packet, port: int) -> bool:
    return packet.ports == (port, PORT) and 253 in packet.options and not packet.outgoing
