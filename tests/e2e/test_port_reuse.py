"""A client's port used again at once: the server, the bridge or the balancer may still remember."""

from __future__ import annotations

import time

import pytest

from tests.e2e import web
from tests.e2e.capture import FIN
from tests.e2e.lab import LAB, Lab, until
from tests.e2e.raw import new_port, raw_sender
from tests.e2e.scripted import abort

pytestmark = pytest.mark.root

# No connection of the kernel's own choice comes from these (net.ipv4.ip_local_port_range).
OWN_PORTS = iter(range(61_100, 62_000))


@pytest.mark.parametrize("timestamps", [1, 0], ids=["timestamps", "no timestamps"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_port_again_at_once(lab: Lab, first: str, timestamps: int) -> None:
    """The side that ended first waits in TIME-WAIT; the other may open the same connection anew.

    The client's own kernel is told not to wait, as other systems do not either. Without timestamps
    the server goes by the sequence number alone.
    """
    body, port = (LAB / "www" / "1k").read_bytes(), next(OWN_PORTS)
    settings = {"net_ipv4_tcp_max_tw_buckets": 0, "net_ipv4_tcp_timestamps": timestamps}
    with lab.sysctl("client", **settings):
        for _ in range(20):
            with lab.connect(port=port) as tcp:
                started = time.monotonic()
                web.fetch_and_end(tcp, "/1k", body, first)
                assert time.monotonic() - started < 0.18
            until(lambda: lab.closed(port), 2, "the server has acknowledged the client's end")


def test_port_again_while_only_the_server_remembers(lab: Lab) -> None:
    """A server in TIME-WAIT takes a new SYN only if it is later, by its number or its timestamp.
    One that is neither it answers with an ACK (RFC 9293 section 3.10.7.3). The bridge has forgotten
    the connection before, and helps."""

    def forgetful(text: str) -> str:
        return text + "\n[timeouts]\nclosing = 1.0\nlinger = 0.0\n"

    path = lab.path_for("1k", "backend1")
    ask = web.request(path, close=True)
    with lab.configured(backend1=forgetful), raw_sender(lab) as sender:
        port = new_port()
        for isn in (2_000_000_000, 1_000_000_000):
            connection = sender.open(port=port, isn=isn, timestamps=False)
            seen = len(sender.answers(port))
            connection.send()
            asked = time.monotonic()
            connection.send(ask, "PA")
            end = sender.answer(port, lambda packet: bool(packet.flags & FIN), after=seen)
            assert time.monotonic() - asked < 0.18
            answers = b"".join(packet.payload for packet in sender.answers(port)[seen:])
            assert answers.endswith((LAB / "www" / "1k").read_bytes())
            connection.seq += len(ask)
            connection.ack = (end.seq + len(end.payload) + 1) % 2**32
            connection.send(flags="FA")
            until(lambda: lab.states("backend1", port) == ["TIME-WAIT"], 2, "the server waits")
            until(lambda: not lab.counters("backend1")["flows"], 8, "the bridge forgets")
        assert lab.counters("backend1")["time_wait_resets"] == 1


def test_port_again_after_a_reset(lab: Lab) -> None:
    body, port = (LAB / "www" / "1k").read_bytes(), next(OWN_PORTS)
    for _ in range(20):
        tcp = lab.connect(port=port)
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).body == body
        abort(tcp)


def test_port_again_for_another_path(lab: Lab) -> None:
    """The same port, now for the other backend: the first one's record is not met."""
    paths = [lab.path_for("1k", "backend1"), lab.path_for("1k", "backend2")]
    port = next(OWN_PORTS)
    for turn in range(20):
        tcp = lab.connect(port=port)
        tcp.sendall(web.request(paths[turn % 2]))
        assert web.response(tcp).backend == f"backend{turn % 2 + 1}"
        abort(tcp)


def test_port_again_and_the_earlier_request_comes_late(lab: Lab) -> None:
    """A copy of it, from somewhere on the way: its cookie is still good, but its time is over."""
    with raw_sender(lab) as sender:
        port = new_port()
        earlier = sender.open(port=port)
        earlier.send()
        request = earlier.segment(web.request("/1k"), "PA")
        earlier.say(web.request("/1k"))
        earlier.read(_whole)
        earlier.send(flags="R")
        until(lambda: lab.states("backend1", port) + lab.states("backend2", port) == [], 2, "end")
        later = sender.open(port=port, isn=1_000_000_000)
        later.send()
        sender.send(request)
        later.say(web.request("/1k"))
        later.read(_whole)
        later.end()


def test_a_request_in_parts_that_come_at_once(lab: Lab) -> None:
    """All of them are the new connection's, before the first has told so."""
    old, new = (lab.path_for("1k", name) for name in ("backend1", "backend2"))
    with raw_sender(lab) as sender:
        vanished = sender.open()
        vanished.say(web.request(old))
        vanished.read(_whole)
        time.sleep(0.1)  # the old one is the kernel's, if it will be
        again = sender.open(port=vanished.port, isn=5_000_000)
        request = web.request(new, "X-Long: " + 3000 * "x")
        for part in (request[:1000], request[1000:2000], request[2000:]):
            again.say(part)
        assert b"X-Backend: backend2" in again.read(_whole)


def _whole(data: bytes) -> bool:
    """Whether a response of 1 KiB is."""
    return len(data.partition(b"\r\n\r\n")[2]) == 1024
