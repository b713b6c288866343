"""Ways to configure a bridge: remote servers, several servers, several VIPs, held handshakes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, LAB, SERVER1, SERVER2, VIP, Lab
from tests.e2e.scripted import echo_head, serving

pytestmark = pytest.mark.root

VIP2, BRIDGE3 = "192.168.33.11", "192.168.33.22"
SECOND_SERVER = (SERVER1, 8082)
FIRST_PORT, LAST_PORT = 20000, 29999  # the default range of source mode bridge

# No connection of the kernel's own choice comes from these (net.ipv4.ip_local_port_range).
OWN_PORTS = iter(range(62_100, 63_000))


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


def extended(addition: str) -> Callable[[str], str]:
    return lambda text: text + addition


# --- source mode bridge: the server is on another host ---


@pytest.fixture(scope="module")
def remote(running_lab: Lab) -> Iterator[None]:
    """The bridge at .20 has nginx on the other backend host."""

    def change(text: str) -> str:
        elsewhere = text.replace(f'"{SERVER1}:80"', f'"{SERVER2}:80"')
        return elsewhere.replace('source = "client"', 'source = "bridge"')

    with running_lab.configured(backend1=change):
        yield


@pytest.fixture(scope="module")
def path(running_lab: Lab) -> str:
    """A path whose requests go to the bridge at .20."""
    return running_lab.path_to("backend1")


@pytest.fixture(scope="module")
def dotted(running_lab: Lab) -> Callable[[str], str]:
    """Gives to a file's name a path that leads to the bridge at .20: nginx drops the dots, the
    balancer hashes them."""

    def find(name: str) -> str:
        for dots in range(64):
            path = "/." * dots + f"/{name}"
            if running_lab.curl(path, "-I").backend == "backend1":
                return path
        raise AssertionError("no path leads to backend1")

    return find


@pytest.fixture(scope="module")
def paths(dotted: Callable[[str], str]) -> dict[str, str]:
    return {name: dotted(name) for name in ("20m", "upload/remote")}


def test_remote_server(lab: Lab, path: str, paths: dict[str, str], remote: None) -> None:
    """The server sees the bridge with a port of its range, the client only the VIP."""
    with (
        capture(lab, "backend2") as at_server,
        capture(lab, "client") as at_client,
        lab.connect() as tcp,
    ):
        tcp.sendall(web.request(path, close=True))
        answer = web.rest(tcp)
        port = tcp.getsockname()[1]
    assert answer.endswith((LAB / "www" / path[1:]).read_bytes())
    assert b"X-Backend: backend2" in answer
    received = [packet for packet in at_server.packets if not packet.outgoing]
    assert {packet.way for packet in received} == {(BRIDGE1, SERVER2)}
    assert all(FIRST_PORT <= packet.ports[0] <= LAST_PORT for packet in received)
    assert {packet.way for packet in at_client.packets if port in packet.ports} == {
        (CLIENT, VIP),
        (VIP, CLIENT),
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"net_ipv4_tcp_timestamps": 0},
        {"net_ipv4_tcp_timestamps": 0, "net_ipv4_tcp_sack": 0, "net_ipv4_tcp_window_scaling": 0},
    ],
    ids=["all options", "no timestamps", "no options"],
)
def test_remote_download_and_upload(
    lab: Lab, paths: dict[str, str], remote: None, settings: dict[str, int]
) -> None:
    uploaded, source = LAB / "www" / "upload" / "remote", LAB / "www" / "20m"
    with lab.sysctl("client", **settings):
        answer = lab.curl(paths["20m"])
        assert answer.body == source.read_bytes()
        assert answer.backend == "backend2"
        try:
            sent = lab.curl(paths["upload/remote"], "-T", str(source))
            assert sent.status in (201, 204)
            assert uploaded.read_bytes() == source.read_bytes()
        finally:
            uploaded.unlink(missing_ok=True)


def test_remote_many_connections(lab: Lab, path: str, paths: dict[str, str], remote: None) -> None:
    body = (LAB / "www" / path[1:]).read_bytes()
    tally = web.at_once(lab, 1000, 32, path, body)
    assert tally.failures == []
    assert tally.slowest < 0.18


def test_remote_client_with_a_port_of_the_range(
    lab: Lab, path: str, paths: dict[str, str], remote: None
) -> None:
    """A client may well have a port that the bridge uses for its own connections."""
    body = (LAB / "www" / path[1:]).read_bytes()
    for port in range(FIRST_PORT, FIRST_PORT + 20):
        with lab.connect(port=port) as tcp:
            tcp.sendall(web.request(path, close=True))
            assert web.rest(tcp).endswith(body)


# --- one bridge host, two servers ---


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


# --- two VIPs ---


@pytest.fixture(scope="module")
def two_vips(running_lab: Lab) -> Iterator[None]:
    """A second VIP with a DSCP of its own, for the same backends."""
    lab = running_lab
    service = f"""
[[services]]
name = "second"
vip = "{VIP2}"
port = 80
dscp = 2

[[services.backends]]
name = "backend1"
bridge = "{BRIDGE1}"

[[services.backends]]
name = "backend2"
bridge = "{BRIDGE2}"
"""
    balancer = f'\n[[balancers]]\ndscp = 2\nvip = "{VIP2}"\n'
    with (
        lab.address("balancer", VIP2),
        lab.configured(
            balancer=extended(service), backend1=extended(balancer), backend2=extended(balancer)
        ),
    ):
        yield


def test_each_vip_answers_as_itself(lab: Lab, two_vips: None) -> None:
    with capture(lab, "balancer") as packets:
        answers = {vip: lab.curl("/1k", to=vip) for vip in (VIP, VIP2)}
    for vip, dscp in ((VIP, 1), (VIP2, 2)):
        assert answers[vip].status == 200
        port = answers[vip].port
        assert {packet.dscp for packet in _steered(packets.packets, port)} == {dscp}


def test_same_port_to_both_vips_at_once(lab: Lab, two_vips: None) -> None:
    """At the server both would be one connection: the second gets another source port there."""
    path = lab.path_to("backend1")
    body = (LAB / "www" / path[1:]).read_bytes()
    for _ in range(10):
        port = next(OWN_PORTS)
        with ExitStack() as stack:
            both = [
                stack.enter_context(lab.connect(to=(vip, 80), port=port)) for vip in (VIP, VIP2)
            ]
            for _ in range(3):
                for tcp in both:
                    tcp.sendall(web.request(path))
                for tcp in both:
                    response = web.response(tcp)
                    assert (response.body, response.backend) == (body, "backend1")


def test_same_port_downloads_from_both_vips(lab: Lab, two_vips: None) -> None:
    body = (LAB / "www" / "1m").read_bytes()
    port = next(OWN_PORTS)
    with lab.connect(port=port) as first, lab.connect(to=(VIP2, 80), port=port) as second:
        for tcp in (first, second):
            tcp.sendall(web.request("/1m", close=True))
        assert web.rest(first).endswith(body)
        assert web.rest(second).endswith(body)


# --- the server's handshake ---


@pytest.mark.parametrize("held", ["on", "off"])
def test_hold_handshake(lab: Lab, held: str) -> None:
    """A client whose handshake takes 100 ms: its round trip is what the server waits, or not."""
    key = replaced('source = "client"\n', f'source = "client"\nhold_handshake = "{held}"\n')
    path = lab.path_to("backend1")
    with lab.configured(backend1=key), capture(lab, "backend1", "lo") as packets:
        response, port = _fetch_with_late_ack(lab, path)
        assert response.body == (LAB / "www" / path[1:]).read_bytes()
        ours = [packet for packet in packets.packets if port in packet.ports]
    flags = [packet.flags & 0x17 for packet in ours[:1]]
    assert flags == [2]  # the SYN; the server's answers leave for the client by eth0


def _fetch_with_late_ack(lab: Lab, path: str) -> tuple[web.Response, int]:
    with lab.connect() as tcp:
        tcp.sendall(web.request(path))
        return web.response(tcp), tcp.getsockname()[1]


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


def _steered(packets: list[Packet], port: int) -> list[Packet]:
    return [p for p in packets if p.destination in (BRIDGE1, BRIDGE2) and port in p.ports]
