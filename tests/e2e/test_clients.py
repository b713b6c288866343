"""Clients of all kinds: what their TCP offers, how they send a request, how they end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import ACK, ECE, FIN, RST, SYN, Capture, Packet, capture
from tests.e2e.lab import CLIENT, LAB, VIP, Lab, until
from tests.e2e.raw import new_port, raw_sender
from tests.e2e.scripted import (
    PORT,
    abort,
    echo_head,
    head_of,
    respond,
    scripted_service,
    serving,
)

pytestmark = pytest.mark.root

SCRIPTED = (VIP, PORT)
WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS = 3, 4, 8  # kinds of TCP options

# No connection of the kernel's own choice comes from these (net.ipv4.ip_local_port_range).
OWN_PORTS = iter(range(61_100, 62_000))


@pytest.fixture(scope="module")
def scripted(running_lab: Lab) -> Iterator[None]:
    with scripted_service(running_lab):
        yield


# --- what the client's TCP offers ---


@pytest.mark.parametrize(
    ("lacking", "settings"),
    [
        ({TIMESTAMPS}, {"net_ipv4_tcp_timestamps": 0}),
        ({SACK_PERMITTED}, {"net_ipv4_tcp_sack": 0}),
        ({WINDOW_SCALE}, {"net_ipv4_tcp_window_scaling": 0}),
        (
            {TIMESTAMPS, SACK_PERMITTED, WINDOW_SCALE},
            {
                "net_ipv4_tcp_timestamps": 0,
                "net_ipv4_tcp_sack": 0,
                "net_ipv4_tcp_window_scaling": 0,
            },
        ),
    ],
    ids=["no timestamps", "no SACK", "no window scale", "none of them"],
)
def test_client_without_an_option(lab: Lab, lacking: set[int], settings: dict[str, int]) -> None:
    with lab.sysctl("client", **settings), capture(lab, "client") as packets:
        _download_and_upload(lab)
    syn, syn_ack = _handshake(packets)
    for offered in (syn.options, syn_ack.options):
        assert {WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS} - offered.keys() == lacking
    if TIMESTAMPS in lacking:
        assert not any(TIMESTAMPS in packet.options for packet in _ours(packets))


def test_all_options_are_used_by_default(lab: Lab) -> None:
    with capture(lab, "client") as packets:
        _download_and_upload(lab)
    syn, syn_ack = _handshake(packets)
    for offered in (syn.options, syn_ack.options):
        assert offered.keys() >= {WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS}
    for packet in _ours(packets):
        assert TIMESTAMPS in packet.options or packet.flags & RST  # which may lack them


def test_client_that_offers_ecn(lab: Lab) -> None:
    with lab.sysctl("client", net_ipv4_tcp_ecn=1), capture(lab, "client") as packets:
        _download_and_upload(lab)
    syn, syn_ack = _handshake(packets)
    assert syn.flags & ECE
    assert not syn_ack.flags & ECE


def test_client_with_a_small_mss(lab: Lab) -> None:
    """As behind a tunnel. No segment of the server's is larger than the client said it takes."""
    with lab.no_offloads(), capture(lab, "client") as packets, _small_mss(lab) as tcp:
        tcp.sendall(web.request("/1m", close=True))
        answer = web.rest(tcp)
    assert answer.endswith((LAB / "www" / "1m").read_bytes())
    assert int.from_bytes(_handshake(packets)[0].options[2], "big") == 536
    # less the twelve bytes of timestamps that each segment carries
    assert max(len(packet.payload) for packet in packets.packets if not packet.outgoing) == 524


# --- how the request comes ---


def test_head_of_12_kb(lab: Lab, scripted: None) -> None:
    cookie = "Cookie: " + "; ".join(f"c{number}={'v' * 100}" for number in range(115))
    head = web.request("/large-head", cookie)
    assert len(head) > 12_000
    _expect_echo(lab, [head])


def test_head_byte_by_byte(lab: Lab, scripted: None) -> None:
    head = web.request("/byte-by-byte", "User-Agent: slow")
    _expect_echo(lab, [head[at : at + 1] for at in range(len(head))])


def test_head_byte_by_byte_with_pauses(lab: Lab, scripted: None) -> None:
    """Slower than the balancer waits before it acknowledges: each byte is acknowledged."""
    head = web.request("/slow", "User-Agent: slow")
    _expect_echo(lab, [head[at : at + 1] for at in range(len(head))], pause=0.05)


def test_head_in_parts_of_a_patient_client(lab: Lab, scripted: None) -> None:
    """With Nagle's algorithm the second part waits until the first is acknowledged."""
    head = web.request("/nagle", "User-Agent: patient")
    started = time.monotonic()
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        for part in (head[:5], head[5:9], head[9:]):
            tcp.sendall(part)
        assert web.response(tcp).body == head
    assert time.monotonic() - started < 0.18


def test_path_of_5_kb_in_tiny_segments(lab: Lab, scripted: None) -> None:
    """Ten segments fill the client's first window, of which the balancer has to take over some."""
    head = web.request("/" + "path/" * 1000)
    _expect_echo(lab, [head[at : at + 16] for at in range(0, len(head), 16)])


def test_path_of_5_kb_in_several_segments(lab: Lab, scripted: None) -> None:
    _expect_echo(lab, [web.request("/" + "path/" * 1000)])


def test_path_of_12_kb(lab: Lab, scripted: None) -> None:
    """Beyond the initial window of a client whose segments are small."""
    head = web.request("/" + "path/" * 2400)
    with serving(lab, echo_head), _small_mss(lab, SCRIPTED) as tcp:
        tcp.sendall(head)
        assert web.response(tcp).body == head


def test_request_line_then_headers_later(lab: Lab, scripted: None) -> None:
    """Handed over with the request line; the rest finds its way after a pause."""
    head = web.request("/two-parts", "X-More: " + "m" * 3000)
    line, rest = head[:30], head[30:]
    assert b"\r\n" in line
    _expect_echo(lab, [line, rest], pause=0.3)


def test_body_right_behind_the_head(lab: Lab, scripted: None) -> None:
    body = bytes(range(256)) * 200

    def receive(tcp: socket.socket) -> None:
        head_of(tcp)
        received = b""
        while len(received) < len(body):
            received += tcp.recv(65536)
        respond(tcp, received)

    head = web.request("/body", f"Content-Length: {len(body)}", method="POST")
    with serving(lab, receive), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(head + body)
        assert web.response(tcp).body == body


def test_server_sees_the_clients_own_address_and_port(lab: Lab, scripted: None) -> None:
    with serving(lab, echo_head) as server, lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        web.response(tcp)
        assert server.peers == [(CLIENT, tcp.getsockname()[1])]


def test_first_use_after_five_seconds(lab: Lab) -> None:
    with lab.connect() as tcp:
        time.sleep(5)
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200


def test_next_request_after_five_seconds(lab: Lab) -> None:
    with lab.connect() as tcp:
        for pause in (0, 5):
            time.sleep(pause)
            tcp.sendall(web.request("/1k"))
            assert web.response(tcp).status == 200


# --- how the connection ends ---


def test_client_closes_first(lab: Lab, scripted: None) -> None:
    ended: list[bytes] = []

    def serve(tcp: socket.socket) -> None:
        respond(tcp, head_of(tcp))
        ended.append(tcp.recv(1))

    with serving(lab, serve):
        tcp = lab.connect(to=SCRIPTED)
        tcp.sendall(web.request("/"))
        web.response(tcp)
        tcp.close()
        until(lambda: ended, 5, "the server learns of the end")
    assert ended == [b""]


def test_server_closes_first(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k", close=True))
        assert web.rest(tcp).endswith((LAB / "www" / "1k").read_bytes())


def test_client_resets_in_mid_download(lab: Lab) -> None:
    backend = lab.curl("/100m", "-I").backend
    tcp = lab.connect()
    port = tcp.getsockname()[1]
    tcp.sendall(web.request("/100m"))
    assert tcp.recv(100_000)
    assert lab.states(backend, port) == ["ESTAB"]
    abort(tcp)
    until(lambda: not lab.states(backend, port), 2, "the server's connection is closed")


def test_server_resets(lab: Lab, scripted: None) -> None:
    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        abort(tcp)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)


def test_server_resets_in_mid_download(lab: Lab, scripted: None) -> None:
    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        tcp.sendall(bytes(100_000))
        assert tcp.recv(1) == b"!"  # the client has got some of it
        abort(tcp)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        assert tcp.recv(1000)
        tcp.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            web.rest(tcp)


def test_nobody_listens(lab: Lab, scripted: None) -> None:
    """The server's host answers with RST, and the client gets one at once."""
    with lab.connect(to=SCRIPTED) as tcp:
        started = time.monotonic()
        tcp.sendall(web.request("/"))
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)
        assert time.monotonic() - started < 1


def test_client_half_closes(lab: Lab, scripted: None) -> None:
    """The server answers at length although the client has ended its side. (nginx would not.)"""
    body = (LAB / "www" / "20m").read_bytes()

    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        assert tcp.recv(1) == b""
        respond(tcp, body)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        tcp.shutdown(socket.SHUT_WR)
        assert web.rest(tcp).endswith(body)


def test_request_and_fin_in_one_segment(lab: Lab, scripted: None) -> None:
    """TCP_CORK holds the request back until the end comes with it."""

    def serve(tcp: socket.socket) -> None:
        head = head_of(tcp)
        assert tcp.recv(1) == b""
        respond(tcp, head)

    head = web.request("/")
    with serving(lab, serve), capture(lab, "client") as packets, lab.connect(to=SCRIPTED) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        tcp.sendall(head)
        tcp.shutdown(socket.SHUT_WR)
        assert web.rest(tcp).endswith(head)
    assert any(
        packet.outgoing and packet.flags & FIN and packet.payload for packet in packets.packets
    )


def test_fin_before_any_data(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.shutdown(socket.SHUT_WR)
        assert tcp.recv(1) == b""


def test_unused_connection_closes_cleanly(lab: Lab) -> None:
    """As a browser's preconnect. Neither side resets, and the balancer keeps nothing of it."""
    with capture(lab, "client") as packets:
        tcp = lab.connect()
        port = tcp.getsockname()[1]
        tcp.close()
        until(lambda: lab.closed(port), 5, "the client's side is closed")
    assert not any(packet.flags & RST for packet in _ours(packets))
    assert lab.counters("balancer")["waiting"] == 0


def test_server_half_closes(lab: Lab, scripted: None) -> None:
    """What the client still has to say reaches a server that has ended its side."""
    heard: list[bytes] = []

    def serve(tcp: socket.socket) -> None:
        respond(tcp, head_of(tcp))
        tcp.shutdown(socket.SHUT_WR)
        heard.append(web.rest(tcp))

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        web.rest(tcp)
        tcp.sendall(b"thanks" * 1000)
        tcp.close()
        until(lambda: heard, 5, "the server has heard all")
    assert heard == [b"thanks" * 1000]


@pytest.mark.parametrize("first", ["client", "server"])
def test_port_again_at_once(lab: Lab, first: str) -> None:
    """The side that ended first waits in TIME-WAIT; the other may open the same connection anew.

    The client's own kernel is told not to wait, as other systems do not either.
    """
    body, port = (LAB / "www" / "1k").read_bytes(), next(OWN_PORTS)
    with lab.sysctl("client", net_ipv4_tcp_max_tw_buckets=0):
        for _ in range(20):
            with lab.connect(port=port) as tcp:
                started = time.monotonic()
                tcp.sendall(web.request("/1k", close=first == "server"))
                if first == "server":
                    assert web.rest(tcp).endswith(body)
                else:
                    assert web.response(tcp).body == body
                    tcp.shutdown(socket.SHUT_WR)
                    assert web.rest(tcp) == b""
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


def _small_mss(lab: Lab, to: tuple[str, int] = (VIP, 80)) -> socket.socket:
    """A connection that offers, and itself sends, no segment above 536 bytes."""
    tcp = lab.socket("client")
    tcp.settimeout(10)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    tcp.connect(to)
    return tcp


def _download_and_upload(lab: Lab) -> None:
    answer = lab.curl("/20m")
    assert answer.status == 200
    assert answer.body == (LAB / "www" / "20m").read_bytes()
    uploaded = LAB / "www" / "upload" / "client"
    try:
        source = LAB / "www" / "20m"
        assert lab.curl("/upload/client", "-T", str(source)).status in (201, 204)
        assert uploaded.read_bytes() == source.read_bytes()
    finally:
        uploaded.unlink(missing_ok=True)


def _handshake(packets: Capture) -> tuple[Packet, Packet]:
    """The first SYN and its SYN-ACK."""
    syn = next(packet for packet in packets.packets if packet.flags & (SYN | ACK) == SYN)
    answer = next(packet for packet in packets.packets if packet.flags & (SYN | ACK) == SYN | ACK)
    return syn, answer


def _ours(packets: Capture) -> list[Packet]:
    """Packets of the connections that began while they were recorded."""
    begun = {p.ports[0] for p in packets.packets if p.outgoing and p.flags & (SYN | ACK) == SYN}
    return [packet for packet in packets.packets if begun & set(packet.ports)]


def _expect_echo(lab: Lab, parts: list[bytes], pause: float = 0) -> None:
    """A head sent in these parts, a segment each, reaches the server as it is, once."""
    head = b"".join(parts)
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            tcp.sendall(part)
            if pause:
                time.sleep(pause)
        assert web.response(tcp).body == head
        tcp.sendall(head)  # and the connection goes on
        assert web.response(tcp).body == head
