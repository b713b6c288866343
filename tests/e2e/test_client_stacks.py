"""What a client's TCP offers and does, by itself or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import ACK, ECE, RST, SYN, capture
from tests.e2e.kernel_clients import begun, fast_open, handshake, small_mss
from tests.e2e.lab import LAB, Lab
from tests.e2e.raw import Connection, RawSender, raw_sender

pytestmark = pytest.mark.root

# Kinds of TCP options.
MSS, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS, FAST_OPEN = 2, 3, 4, 8, 34


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


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
    syn, syn_ack = handshake(packets)
    for offered in (syn.options, syn_ack.options):
        assert {WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS} - offered.keys() == lacking
    if TIMESTAMPS in lacking:
        assert not any(TIMESTAMPS in packet.options for packet in begun(packets))


def test_all_options_are_used_by_default(lab: Lab) -> None:
    with capture(lab, "client") as packets:
        _download_and_upload(lab)
    syn, syn_ack = handshake(packets)
    for offered in (syn.options, syn_ack.options):
        assert offered.keys() >= {WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS}
    for packet in begun(packets):
        assert TIMESTAMPS in packet.options or packet.flags & RST  # which may lack them


def test_client_that_offers_ecn(lab: Lab) -> None:
    with lab.sysctl("client", net_ipv4_tcp_ecn=1), capture(lab, "client") as packets:
        _download_and_upload(lab)
    syn, syn_ack = handshake(packets)
    assert syn.flags & ECE
    assert not syn_ack.flags & ECE


@pytest.mark.parametrize("flags", ["SEC", "SECN"], ids=["ECN", "accurate ECN"])
def test_syn_that_offers_ecn_is_answered_without(sender: RawSender, flags: str) -> None:
    """RFC 3168, and RFC 9768 whose third flag lies beside the data offset."""
    connection = sender.open_with(b"", flags=flags, options=[("MSS", 1460)])
    syn_ack = connection.answers()[0]
    assert syn_ack.flags == SYN | ACK
    assert syn_ack.tcp[12] & 15 == 0
    _fetches(connection)


def test_syn_without_any_option(lab: Lab, sender: RawSender) -> None:
    """Whoever names no segment size takes 536 bytes (RFC 9293 section 3.7.1)."""
    with lab.no_offloads():
        connection = sender.open_with(b"")
        _fetches(connection)
    assert connection.answers()[0].options.keys() == {MSS}
    assert max(len(packet.payload) for packet in connection.answers()) <= 536


def test_client_with_a_small_mss(lab: Lab) -> None:
    """As behind a tunnel. No segment of the server's is larger than the client said it takes, and
    its own small ones arrive."""
    content = (LAB / "www" / "1m").read_bytes()
    uploaded = LAB / "www" / "upload" / "small-mss"
    put = web.request(
        "/upload/small-mss", f"Content-Length: {len(content)}", method="PUT", close=True
    )
    with lab.no_offloads(), capture(lab, "client") as packets:
        with small_mss(lab) as tcp:
            tcp.sendall(web.request("/1m", close=True))
            assert web.rest(tcp).endswith(content)
        try:
            with small_mss(lab) as tcp:
                tcp.sendall(put + content)
                assert web.rest(tcp).startswith(b"HTTP/1.1 201 ")
            assert uploaded.read_bytes() == content
        finally:
            uploaded.unlink(missing_ok=True)
    assert int.from_bytes(handshake(packets)[0].options[MSS], "big") == 536
    # less the twelve bytes of timestamps that each segment carries
    for outgoing in (False, True):
        sizes = {len(p.payload) for p in packets.packets if p.outgoing == outgoing}
        assert max(sizes) == 524


# --- TCP Fast Open (RFC 7413): declined, at no cost to the client but its round trip ---


def test_client_asks_for_a_fast_open_cookie(lab: Lab) -> None:
    with (
        lab.sysctl("client", net_ipv4_tcp_fastopen=1),
        capture(lab, "client") as packets,
        fast_open(lab, web.request("/1k")) as tcp,
    ):
        assert web.response(tcp).body == (LAB / "www" / "1k").read_bytes()
    syn, syn_ack = handshake(packets)
    assert syn.options[FAST_OPEN] == b""
    assert FAST_OPEN not in syn_ack.options


def test_client_sends_its_request_in_the_syn(lab: Lab) -> None:
    """Without a cookie, as an administrator can tell Linux to (bit 4 of tcp_fastopen)."""
    ask = web.request("/1k")
    with (
        lab.sysctl("client", net_ipv4_tcp_fastopen=5),
        capture(lab, "client") as packets,
        fast_open(lab, ask) as tcp,
    ):
        assert web.response(tcp).body == (LAB / "www" / "1k").read_bytes()
    syn, syn_ack = handshake(packets)
    assert syn.payload == ask
    assert syn_ack.ack == (syn.seq + 1) % 2**32, "the data are declined, and come again"
    assert [p.payload for p in begun(packets) if p.outgoing and p.payload] == [ask, ask]


@pytest.mark.parametrize("cookie", [b"", b"\x5a" * 8, b"\x5a" * 16])
def test_syn_with_data_and_a_cookie_of_nobodys(lab: Lab, sender: RawSender, cookie: bytes) -> None:
    ask = web.request("/1k")
    grown = lab.growth("balancer")
    options = [("MSS", 1460), (FAST_OPEN, cookie)]
    connection = sender.open_with(ask, options=options)
    assert FAST_OPEN not in connection.answers()[0].options
    assert grown("connections") == 0, "nothing is kept of a SYN"
    _fetches(connection)


def _fetches(connection: Connection) -> None:
    """The connection's handshake is completed, and a file comes over it whole."""
    body = (LAB / "www" / "1k").read_bytes()
    connection.say(web.request("/1k"))
    connection.read(lambda data: data.endswith(body))
    assert not any(packet.flags & RST for packet in connection.answers())
    connection.send(flags="RA")


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
