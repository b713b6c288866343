"""Segments that no ordinary client sends: each is dropped by name and harms nobody.

A download through the same programs goes on beside them.
"""

from __future__ import annotations

import random
import socket
import time
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, fragment

from tests.e2e import web
from tests.e2e.capture import RST
from tests.e2e.hostile import DSCP, REQUEST, with_options
from tests.e2e.lab import BRIDGE1, CLIENT, LAB, VIP, Lab
from tests.e2e.raw import RawSender, new_port, segment

pytestmark = pytest.mark.root

MD5 = (19, bytes(16))  # RFC 2385


# --- to the balancer: segments that cannot be read, or make no sense ---


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("bad_tcp_header", {"flags": "S", "dataofs": 4}),
        ("bad_tcp_header", {"flags": "S", "dataofs": 15}),
        ("bad_tcp_header", {"flags": "A", "dataofs": 0}),
        ("bad_syn_flags", {"flags": "SF"}),
        ("bad_syn_flags", {"flags": "SR"}),
        ("bad_syn_flags", {"flags": "SA"}),
        ("bad_syn_flags", {"flags": "FSRPAUEC"}),
        ("tcp_md5_syn", {"flags": "S", "options": [MD5]}),
        ("no_ack_flag", {"flags": ""}),
        ("no_ack_flag", {"flags": "F"}),
        ("unknown_flow", {"flags": "A", "seq": 1, "ack": 1}),
        ("unknown_flow", {"flags": "FPU" + "A", "seq": 1, "ack": 1}),
        ("unknown_flow", {"flags": "R", "seq": 1}),
        ("bad_tcp_checksum", {"flags": "S", "chksum": 0x1234}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or None,
)
@pytest.mark.usefixtures("unharmed")
def test_segment_that_makes_no_sense(
    lab: Lab, sender: RawSender, reason: str, fields: dict[str, Any]
) -> None:
    port = new_port()
    grown = lab.growth("balancer")
    sender.send(segment(port, **fields))
    assert grown.reaches(reason)
    assert grown("connections") == grown("handoffs") == 0
    assert sender.answers(port) == []


@pytest.mark.parametrize(
    "options",
    [b"\x02", b"\x02\x00", b"\x02\x01\x00\x00", b"\x03\x28\x00\x00", b"\xfd\x10\x4c\x33"],
    ids=["no length", "length 0", "length 1", "beyond the header", "our option cut short"],
)
@pytest.mark.usefixtures("unharmed")
def test_malformed_options(lab: Lab, sender: RawSender, options: bytes) -> None:
    options = options.rjust(-(-len(options) // 4) * 4, b"\x01")
    grown = lab.growth("balancer")
    sender.send(with_options(segment(new_port(), flags="S"), options))
    assert grown.reaches("bad_tcp_options")


@pytest.mark.usefixtures("unharmed")
def test_truncated_packets(lab: Lab, sender: RawSender) -> None:
    """Cut at every length; most do not get past the kernel, and none past the balancer."""
    whole = bytes(segment(new_port(), flags="S", options=[("MSS", 1460)], payload=b"GET / HTTP"))
    grown = lab.growth("balancer")
    for length in range(1, len(whole)):
        sender.send(whole[:length])
        header = IP(whole[:20])
        del header.chksum
        header.len = length
        sender.send(bytes(header)[:length] + whole[20:length])
    sender.send(segment(new_port(), flags=""))
    assert grown.reaches("no_ack_flag")  # which has come after all of them
    assert grown("syn") == 0
    assert grown("truncated") + grown("bad_tcp_header") + grown("bad_tcp_checksum") > 20


@pytest.mark.usefixtures("unharmed")
def test_fragments(lab: Lab, sender: RawSender) -> None:
    """Dropped by name, the later ones by the kernel, which waits for the first in vain. Sent again
    as a whole, as a client does that has learned its path's MTU, the request is answered."""
    connection = sender.open()
    connection.send()
    grown = lab.growth("balancer")
    packet = connection.segment(REQUEST, "PA")
    packet.id = 4711
    for part in fragment(packet, 64):
        sender.send(part)
    assert grown.reaches("fragment")
    assert grown("handoffs") == 0
    connection.send(REQUEST, "PA")
    answer = sender.answer(connection.port, lambda packet: bool(packet.payload))
    assert b"200 OK" in answer.payload
    connection.send(flags="R", seq=connection.seq + len(REQUEST))


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("tag", "answers"), [(5, 0), (5 << 13, 1)], ids=["VLAN", "priority"])
def test_tagged_frames(lab: Lab, sender: RawSender, tag: int, answers: int) -> None:
    """A VLAN's are for its own interface, which this host does not have; those of none, which only
    have a priority (IEEE 802.1Q's VLAN 0), are like others."""
    port, grown = new_port(), lab.growth("balancer")
    head = lab.link_address("balancer") + lab.link_address("client") + b"\x81\0"
    with lab.socket("client", socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind(("eth0", 0))
        link.send(head + tag.to_bytes(2, "big") + b"\x08\0" + bytes(segment(port, flags="S")))
    sender.open()  # what comes after it is answered after it
    assert len(sender.answers(port)) == answers
    assert grown("syn") + grown("fast_syns") == answers + 1


@pytest.mark.usefixtures("unharmed")
def test_unknown_connection_is_reset_only_if_it_insists(lab: Lab, sender: RawSender) -> None:
    """Not at once: the packet may be early or late. Then with the number that it asked for."""
    port = new_port()
    grown = lab.growth("balancer")
    sender.send(segment(port, flags="A", seq=77, ack=4242))
    assert grown.reaches("unknown_flow")
    assert sender.answers(port) == []
    time.sleep(0.25)
    sender.send(segment(port, flags="A", seq=77, ack=4242))
    reset = sender.answer(port, lambda packet: bool(packet.flags & RST))
    assert grown.reaches("unknown_flow_reset")
    assert reset.seq == 4242


@pytest.mark.parametrize(
    ("shift_seq", "shift_ack"), [(0, 1), (0, 1 << 31), (1, 0), (100_000, 0)], ids=str
)
@pytest.mark.usefixtures("unharmed")
def test_wrong_cookie(lab: Lab, sender: RawSender, shift_seq: int, shift_ack: int) -> None:
    connection = sender.open()
    grown = lab.growth("balancer")
    seq, ack = connection.seq + shift_seq, (connection.ack + shift_ack) % 2**32
    connection.send(seq=seq, ack=ack)
    assert grown.reaches("unknown_flow")
    assert grown("connections") == 0


@pytest.mark.usefixtures("unharmed")
def test_spoofed_syn_does_not_disturb(lab: Lab, sender: RawSender) -> None:
    """A SYN, a RST and a SYN-ACK with the addresses and ports of the live connection."""
    body = (LAB / "www" / "1m").read_bytes()
    with lab.connect() as tcp:
        port = tcp.getsockname()[1]
        tcp.sendall(web.request("/1k"))
        web.response(tcp)
        for flags in ("S", "R", "SA", "F", "A", "PA"):
            number = random.Random(flags).getrandbits(32)
            sender.send(segment(port, flags=flags, seq=number, ack=number, payload=b""))
            tcp.sendall(web.request("/1m"))
            assert web.response(tcp).body == body


# --- to the balancer: requests that cannot be read ---

UNREADABLE = {
    "garbage": (b"\x00\xff\x80garbage\r\n\r\n", "not_http"),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(100), "tls_hello"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n", "http2_preface"),
    "HTTP/0.9": (b"GET /\r\n", "bad_version"),
    "HTTP/9": (b"GET / HTTP/9.1\r\n\r\n", "bad_version"),
    "no path": (b"GET  HTTP/1.1\r\n\r\n", "bad_target"),
    "long method": (b"G" * 100 + b" / HTTP/1.1\r\n\r\n", "bad_method"),
    "empty lines": (b"\r\n" * 50, "empty_lines"),
    "long line": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", "request_line_too_long"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.usefixtures("unharmed")
def test_unreadable_request_is_reset(lab: Lab, name: str) -> None:
    data, reason = UNREADABLE[name]
    grown = lab.growth("balancer")
    with lab.connect() as tcp:
        tcp.sendall(data)
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)
        assert grown.reaches(reason)
        assert grown("handoffs") == 0


@pytest.mark.usefixtures("unharmed")
def test_request_cut_short_by_its_end(lab: Lab) -> None:
    grown = lab.growth("balancer")
    with lab.connect() as tcp:
        tcp.sendall(b"GET /1k HT")
        tcp.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)
        assert grown.reaches("head_cut_short")


# --- to the balancer: ICMP errors ---


@pytest.mark.parametrize(
    ("reason", "quoted"),
    [
        ("bad_icmp", b""),
        ("bad_icmp", b"\x45" + bytes(10)),
        ("bad_icmp", bytes(28)),
        ("icmp_unknown_flow", bytes(IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=9))[:28]),
    ],
    ids=["nothing", "half a header", "zeros", "unknown connection"],
)
@pytest.mark.usefixtures("unharmed")
def test_icmp_error(lab: Lab, sender: RawSender, reason: str, quoted: bytes) -> None:
    grown = lab.growth("balancer")
    sender.send(IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1300) / quoted)
    assert grown.reaches(reason)


# --- with a configuration of its own (the download above is over), and everything at once ---


def test_source_hash_policy(lab: Lab) -> None:
    """What is no HTTP is handed over by the client's address: the server says what it thinks."""

    def by_source(text: str) -> str:
        return text.replace("dscp = 1\n", 'dscp = 1\nbad_request = "source-hash"\n')

    with lab.configured(balancer=by_source):
        grown = lab.growth("balancer")
        answers = []
        for data, _ in (UNREADABLE["garbage"], UNREADABLE["TLS"], UNREADABLE["HTTP/9"]):
            with lab.connect() as tcp:
                tcp.sendall(data)
                tcp.shutdown(socket.SHUT_WR)
                answers.append(web.rest(tcp))
        assert grown("source_hashed") == 3
        assert grown("handoffs") == 3
    assert all(b" 400 Bad Request" in answer or b" 505 " in answer for answer in answers)


def test_noise_beside_a_download(lab: Lab, sender: RawSender) -> None:
    """Three thousand random segments to VIP and bridge while 20 MB are downloaded."""
    dice = random.Random(20)
    noise = []
    for _ in range(1500):
        header = segment(
            dice.randrange(1024, 65536),
            flags=dice.getrandbits(8),
            seq=dice.getrandbits(32),
            ack=dice.getrandbits(32),
        )
        data = with_options(header, dice.randbytes(4 * dice.randrange(0, 10)))
        to_bridge = IP(data)
        to_bridge.dst, to_bridge.tos = BRIDGE1, DSCP
        del to_bridge.chksum
        noise += [("balancer", data), ("backend1", bytes(to_bridge))]
    wanted = (LAB / "www" / "20m").read_bytes()
    with lab.connect() as tcp:
        tcp.sendall(web.request(lab.path_for("20m", "backend1"), close=True))
        received = tcp.recv(1)
        for host, data in noise:
            sender.send(data, host)
        received += web.rest(tcp)
    assert received.endswith(wanted)
    for program in ("balancer", "backend1"):
        assert lab.alive(program)
        assert lab.counters(program).get("internal_error", 0) == 0
