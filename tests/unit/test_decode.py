"""Captures written by scapy, and the lines that `decode` tells about them."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter

from balancer.core.config import Backend, Config, Service
from balancer.program.decode import DecodeError, decode
from common.core import handoff, keys
from common.program.decoding.dissector import HandoffOption
from tests.unit.http2_heads import GET, START, frame, head
from tests.unit.scapy_oracle import tcp_packet

CLIENT, VIP = ("192.168.33.1", 4711), ("192.168.33.10", 80)
BRIDGE, BACKEND = ("192.168.33.20", 80), ("192.168.33.30", 80)
C, B, R = 0xFFFFFFF0, 0x123456F7, 5000  # c wraps; b ends in parity 1, mss 3, sack, scale 7
CONFIG = Config(
    (Service("web", VIP[0], VIP[1], 1, backends=(Backend("one", BRIDGE[0]),)),),
)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x800)
OFFER = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (100, 0)), ("NOP", None), ("WScale", 7)]
REQUEST = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"


def option(kind: int = 0, **fields: int) -> bytes:
    built = HandoffOption(kind=kind, client_scale=7, promised_scale=8, epoch=5, sack=1, **fields)
    return bytes(built)


def connection() -> list[bytes]:
    """One connection as it passes a host that saw all of it."""
    return [
        tcp_packet(CLIENT, VIP, seq=C, flags="S", options=OFFER),
        tcp_packet(VIP, CLIENT, seq=B, ack=C + 1, flags="SA", options=[("MSS", 1444)]),
        tcp_packet(CLIENT, VIP, seq=C + 1, ack=B + 1),
        tcp_packet(CLIENT, VIP, seq=C + 1, ack=B + 1, flags="PA", payload=REQUEST),
        tcp_packet(
            CLIENT,
            BRIDGE,
            seq=C + 1,
            ack=B + 1,
            flags="PA",
            tos=1 << 2,
            options=option(mss_units=365, rtt_code=6),
            payload=REQUEST,
        ),
        tcp_packet(CLIENT, BACKEND, seq=C, flags="S", options=OFFER),
        tcp_packet(BACKEND, CLIENT, seq=R, ack=C + 1, flags="SA", options=[("MSS", 1460)]),
        tcp_packet(CLIENT, BACKEND, seq=C + 1, ack=R + 1, flags="PA", payload=REQUEST),
        tcp_packet(BACKEND, CLIENT, seq=R + 1, ack=C + 32, payload=b"x" * 1000),
        tcp_packet(VIP, CLIENT, seq=B + 1, ack=C + 32, payload=b"x" * 1000),
        tcp_packet(CLIENT, VIP, seq=C + 32, ack=B + 1001),
        tcp_packet(CLIENT, BRIDGE, seq=C + 32, ack=B + 1001, tos=1 << 2),
        tcp_packet(VIP, CLIENT, seq=B + 1001, ack=C + 32, flags="FA"),
        tcp_packet(CLIENT, VIP, seq=C + 32, ack=B + 1002, flags="R"),
    ]


def write(path: Path, packets: Sequence[bytes | Packet]) -> Path:
    """A pcap over Ethernet, 1 ms between packets."""
    with PcapWriter(str(path), linktype=1) as writer:
        for number, packet in enumerate(packets):
            frame = ETHER / Raw(packet) if isinstance(packet, bytes) else packet
            frame.time = 1000.5 + number / 1000
            writer.write(frame)
    return path


def told(path: Path, config: Config = CONFIG, **limits: int) -> list[str]:
    lines: list[str] = []
    decode(str(path), config, lines.append, **limits)
    return lines


def lines_of(tmp_path: Path, packets: Sequence[bytes | Packet]) -> list[str]:
    """The packets' lines of the first flow, without the space in front."""
    lines = told(write(tmp_path / "test.pcap", packets))
    end = next(i for i, line in enumerate(lines) if line.startswith("  summary"))
    return [line.strip() for line in lines[1:end]]


# --- one connection -------------------------------------------------------------------------------

CLIENT_WAY = "client 192.168.33.1:4711 -> VIP 192.168.33.10:80"
VIP_WAY = "VIP 192.168.33.10:80 -> client 192.168.33.1:4711"
BRIDGE_WAY = "balancer -> bridge 192.168.33.20 (client 192.168.33.1:4711)"
TO_BACKEND = "bridge as client 192.168.33.1:4711 -> backend 192.168.33.30:80"
FROM_BACKEND = "backend 192.168.33.30:80 -> client 192.168.33.1:4711 (before translation)"

EXPECTED = f"""\
flow {CLIENT_WAY}
    0.000000  {CLIENT_WAY}  SYN  c={C} mss=1460 wscale=7 sack ts=100 tsecr=0
    0.001000  {VIP_WAY}  SYN-ACK  b={B} cookie(mss index 3 = 1460, sack, client wscale 7, \
parity 1) mss=1444 wscale=none no-sack no-ts
    0.002000  {CLIENT_WAY}  ACK seq=1 ack=1 win=8192
    0.003000  {CLIENT_WAY}  PSH,ACK seq=1 (30 bytes) ack=1 win=8192  GET /a
    0.004000  {BRIDGE_WAY}  HANDOFF mss=1460 wscale client=7 promised=8 sack epoch=5 rtt>=50ms \
dscp=1  PSH,ACK seq=1 (30 bytes) ack=1 win=8192  GET /a
    0.005000  {TO_BACKEND}  SYN  c={C} (the client's own) mss=1460 wscale=7 sack ts=100 tsecr=0
    0.006000  {FROM_BACKEND}  SYN-ACK  r=5000 mss=1460 wscale=none no-sack no-ts
    0.007000  {TO_BACKEND}  PSH,ACK seq=1 (30 bytes) ack=1 win=8192
    0.008000  {FROM_BACKEND}  ACK seq=1 (1000 bytes) ack=32 win=8192
    0.009000  {VIP_WAY}  response src=VIP  ACK seq=1 (1000 bytes) ack=32 win=8192
    0.010000  {CLIENT_WAY}  ACK seq=32 ack=1001 win=8192
    0.011000  {BRIDGE_WAY}  steered dscp=1  ACK seq=32 ack=1001 win=8192
    0.012000  {VIP_WAY}  FIN,ACK seq=1001 ack=32 win=8192
    0.013000  {CLIENT_WAY}  RST seq=32 win=8192
  summary: 14 packets in 0.013000 s; request GET /a; handed to 192.168.33.20; 30 request bytes; \
1000 response bytes; 1 steered; 1 FIN from VIP; 1 RST from client; \
c={C} b={B} r=5000 b-r={B - R}

1 flow, 14 TCP packets"""


def test_a_connection_from_syn_to_rst(tmp_path: Path) -> None:
    assert told(write(tmp_path / "all.pcap", connection())) == EXPECTED.split("\n")


def test_pcapng_and_gzip_tell_the_same(tmp_path: Path) -> None:
    pcap = write(tmp_path / "all.pcap", connection())
    (tmp_path / "all.pcap.gz").write_bytes(gzip.compress(pcap.read_bytes()))
    with PcapNgWriter(str(tmp_path / "all.pcapng")) as writer:
        for number, packet in enumerate(connection()):
            frame = ETHER / IP(packet)
            frame.time = 1000.5 + number / 1000
            writer.write(frame)
    assert told(tmp_path / "all.pcap.gz") == EXPECTED.split("\n")
    assert told(tmp_path / "all.pcapng") == EXPECTED.split("\n")


@pytest.mark.parametrize("link", ["cooked", "raw"])
def test_other_link_layers(tmp_path: Path, link: str) -> None:
    """Interface "any" gives "cooked" frames, a tunnel bare IP packets."""
    number, head = {"cooked": (113, CookedLinux(proto=0x800)), "raw": (101, None)}[link]
    with PcapWriter(str(tmp_path / "link.pcap"), linktype=number) as writer:
        for packet in connection():
            writer.write(IP(packet) if head is None else head / IP(packet))
    assert told(tmp_path / "link.pcap")[-1] == "1 flow, 14 TCP packets"


def test_flows_are_told_one_after_the_other(tmp_path: Path) -> None:
    second = ("192.168.33.1", 4712)
    packets = [
        packet
        for pair in zip(
            [tcp_packet(CLIENT, VIP, seq=C, flags="S"), tcp_packet(CLIENT, VIP, seq=C + 1, ack=B)],
            [tcp_packet(second, VIP, seq=1, flags="S"), tcp_packet(second, VIP, seq=2, ack=9)],
            strict=True,
        )
        for packet in pair
    ]
    lines = told(write(tmp_path / "two.pcap", packets))
    assert [line for line in lines if line.startswith("flow")] == [
        f"flow {CLIENT_WAY}",
        f"flow {CLIENT_WAY}".replace("4711", "4712"),
    ]
    assert [line[:12].strip() for line in lines if "SYN" in line or "ACK" in line] == [
        "0.000000",
        "0.002000",
        "0.001000",
        "0.003000",
    ]


# --- messages between balancer and bridge ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (0, "HANDOFF mss=1460 wscale client=7 promised=8 sack epoch=5 rtt>=0ms"),
        (1, "HANDOFF confirm mss=1460 wscale client=7 promised=8 sack epoch=5 rtt>=0ms"),
        (2, "FORGET epoch=5"),
        (3, "ASK TIME epoch=5"),
    ],
)
def test_messages_to_the_bridge(tmp_path: Path, kind: int, words: str) -> None:
    packet = tcp_packet(CLIENT, BRIDGE, seq=C + 1, ack=B + 1, tos=6, options=option(kind))
    lines = lines_of(tmp_path, [*connection()[:2], packet])
    assert lines[-1] == f"0.002000  {BRIDGE_WAY}  {words} dscp=1  ACK seq=1 ack=1 win=8192"


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        (4, b"", "ACCEPTED epoch=5  next byte seq=31"),
        (5, REQUEST, "REFUSED epoch=5  the held segment comes back, seq=31 (30 bytes)"),
        (6, b"", "ENDED epoch=5  the connection is over, seq=31"),
        (6, bytes(28), "ENDED epoch=5  the connection and 2 more are over, seq=31 (28 bytes)"),
        (7, b"", "unknown kind 7 epoch=5   seq=31"),
    ],
)
def test_answers_of_the_bridge(tmp_path: Path, kind: int, payload: bytes, words: str) -> None:
    answer = tcp_packet(CLIENT, VIP, seq=C + 31, ack=B + 1, options=option(kind), payload=payload)
    lines = lines_of(tmp_path, [*connection()[:5], answer])
    way = "bridge -> balancer (client 192.168.33.1:4711 -> VIP 192.168.33.10:80)"
    assert lines[-1] == f"0.005000  {way}  {words}"


def test_option_from_the_projects_own_encoder(tmp_path: Path) -> None:
    """The dissector has its own idea of the format: it must be the encoder's."""
    message = handoff.Handoff(handoff.Kind.HANDOFF_CONFIRM, 1220, 250, 15, 14, False)
    binding = handoff.Binding(bytes(12), C, B, C + 1 & 0xFFFFFFFF)
    raw = handoff.encode(keys.derive(bytes(16)), message, binding, 0x123)
    seen = HandoffOption(raw)
    assert seen.mysummary() == (
        "HANDOFF confirm mss=1220 wscale client=none promised=14 no-sack epoch=3 rtt>=250ms"
    )
    assert bytes(seen) == raw


messages = st.builds(
    handoff.Handoff,
    kind=st.sampled_from(list(handoff.Kind)),
    mss=st.integers(0, 4095).map(lambda units: units * 4),
    rtt=st.sampled_from(handoff.RTT_STEPS),
    client_scale=st.integers(0, 15),
    promised_scale=st.integers(0, 15),
    sack=st.booleans(),
)


@given(messages)
def test_dissector_builds_what_the_decoder_reads(message: handoff.Handoff) -> None:
    built = HandoffOption(
        kind=message.kind,
        mss_units=message.mss // 4,
        rtt_code=handoff.RTT_STEPS.index(message.rtt),
        client_scale=message.client_scale,
        promised_scale=message.promised_scale,
        sack=message.sack,
    )
    assert handoff.find(b"\x01\x01" + bytes(built)) == bytes(built)
    assert handoff.decode(bytes(built)) == message


# --- unusual connections --------------------------------------------------------------------------


def test_a_capture_that_starts_in_the_middle(tmp_path: Path) -> None:
    packets = [
        tcp_packet(CLIENT, BRIDGE, seq=1000, ack=2000, tos=4),
        tcp_packet(VIP, CLIENT, seq=2000, ack=1000, payload=b"x" * 10),
    ]
    lines = told(write(tmp_path / "middle.pcap", packets))
    assert lines[1].endswith("steered dscp=1  ACK seq=1 ack=1 win=8192")
    assert lines[2].endswith("response src=VIP  ACK seq=1 (10 bytes) ack=1 win=8192")
    assert "c=999 (first seen) b=1999 (first seen)" in lines[3]


def test_a_later_syn_counts_only_once_it_is_answered(tmp_path: Path) -> None:
    """Anyone can send a SYN with a client's address; the connection goes on undisturbed."""
    head = connection()[:4]
    syn = tcp_packet(CLIENT, VIP, seq=7000, flags="S")
    syn_ack = tcp_packet(VIP, CLIENT, seq=B + 500, ack=7001, flags="SA")
    old = tcp_packet(CLIENT, VIP, seq=C + 31, ack=B + 11)
    new = tcp_packet(CLIENT, VIP, seq=7001, ack=B + 501)
    lines = lines_of(tmp_path, [*head, head[0], syn, syn_ack, old, new])
    assert lines[4].endswith("(again)")
    assert lines[5].endswith("(another connection's)")
    assert lines[7].endswith("ACK seq=31 ack=11 win=8192")
    assert lines[8].endswith("ACK seq=1 ack=1 win=8192  (new incarnation)")


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x16\x03\x01\x02\x00", "no HTTP (tls_hello)"),
        (b"GET /very/lo", "incomplete request line"),
        (head(GET), "HTTP/2 GET /a"),
        (head(GET)[:40], "incomplete HTTP/2 head"),
        (START + frame(0), "no HTTP/2 (http2_bad_frame)"),
        (b"POST http://h/x HTTP/1.0\n", "POST /x"),
    ],
)
def test_what_the_client_asks(tmp_path: Path, payload: bytes, words: str) -> None:
    request = tcp_packet(CLIENT, VIP, seq=C + 1, ack=B + 1, payload=payload)
    assert lines_of(tmp_path, [connection()[0], request])[-1].endswith(f"win=8192  {words}")


@pytest.mark.parametrize(
    ("request_bytes", "cut", "begins", "words"),
    [
        (head(GET), len(START), "incomplete HTTP/2 head", "HTTP/2 GET /a"),  # as curl sends it
        (REQUEST, 9, "incomplete request line", "GET /a"),
    ],
)
def test_a_request_in_two_segments(
    tmp_path: Path, request_bytes: bytes, cut: int, begins: str, words: str
) -> None:
    first, rest = request_bytes[:cut], request_bytes[cut:]
    tos = {"tos": 1 << 2}
    packets = [
        connection()[0],
        tcp_packet(CLIENT, VIP, seq=C + 1, ack=B + 1, payload=first),
        tcp_packet(CLIENT, VIP, seq=C + 1 + cut, ack=B + 1, payload=rest),
        tcp_packet(CLIENT, BRIDGE, seq=C + 1, ack=B + 1, payload=first, **tos),
    ]
    lines = told(write(tmp_path / "c.pcap", packets))
    assert lines[2].endswith(f"win=8192  {begins}")
    assert lines[3].endswith(f"win=8192  {words}")
    assert lines[4].endswith(f"win=8192  {words}")
    assert f"; request {words};" in lines[5]


def test_a_udp_service_of_the_same_port_is_another(tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcap", connection())
    quic = replace(CONFIG.services[0], name="quic", protocol="udp", inspect="none")
    assert told(capture, Config((*CONFIG.services, quic))) == told(capture)


def test_a_bare_syn_from_the_vip(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, [tcp_packet(VIP, CLIENT, seq=1, flags="S")])
    assert lines[0].endswith("SYN alone: asks the client for a challenge ACK")


def test_tcp_that_is_not_ours(tmp_path: Path) -> None:
    ssh, admin = ("192.168.33.20", 22), ("192.168.33.9", 5000)
    packets = [
        tcp_packet(admin, ssh, seq=100, flags="S"),
        tcp_packet(ssh, admin, seq=500, ack=101, flags="SA", tos=4 << 2),
    ]
    assert told(write(tmp_path / "ssh.pcap", packets)) == [
        "other 192.168.33.9:5000 <-> bridge 192.168.33.20:22",
        "    0.000000  192.168.33.9:5000 -> bridge 192.168.33.20:22  SYN seq=100 win=8192",
        "    0.001000  bridge 192.168.33.20:22 -> 192.168.33.9:5000  "
        "dscp=4 names no service  SYN,ACK seq=500 ack=101 win=8192",
        "  summary: 2 packets in 0.001000 s",
        "",
        "1 flow, 2 TCP packets",
    ]


def test_malformed_options_are_named(tmp_path: Path) -> None:
    torn = bytes([253, 16]) + bytes(2)
    short = bytes([253, 8, 0x4C, 0x33]) + bytes(4)
    packets = [
        tcp_packet(CLIENT, VIP, seq=C, flags="S", options=torn),
        tcp_packet(CLIENT, VIP, seq=C + 1, ack=B + 1, options=short),
    ]
    lines = lines_of(tmp_path, packets)
    assert lines[0].endswith("[bad_tcp_options]  [bad_tcp_options]")
    assert lines[1].endswith("[bad_handoff_option]")


def test_packets_cut_short_by_the_capture(tmp_path: Path) -> None:
    """tcpdump -s 68: the IP header still says how long the payload was."""
    frame = ETHER / IP(tcp_packet(VIP, CLIENT, seq=B + 1, ack=C + 1, payload=b"x" * 1000))
    with PcapWriter(str(tmp_path / "cut.pcap"), linktype=1) as writer:
        writer.write_header(frame)
        writer.write_packet(bytes(frame)[:68], sec=1, usec=0, caplen=68, wirelen=len(frame))
    lines = told(tmp_path / "cut.pcap")
    assert lines[1].endswith("response src=VIP  ACK seq=1 (1000 bytes) ack=1 win=8192")


def test_what_is_not_tcp_is_counted(tmp_path: Path) -> None:
    other = Ether(src=ETHER.src, dst=ETHER.dst)
    whole = tcp_packet(CLIENT, VIP, payload=b"x" * 40)
    packets: list[bytes | Packet] = [
        other / ARP(hwsrc=ETHER.src, psrc="192.168.33.1"),
        other / ARP(hwsrc=ETHER.src, psrc="192.168.33.1"),
        other / IPv6(src="::1", dst="::1"),
        ETHER / IP(proto=1) / Raw(bytes(8)),
        ETHER / IP() / UDP(),
        ETHER / IP(proto=47) / Raw(b"gre?"),
        ETHER / IP(flags="MF") / TCP(),
        ETHER / IP(proto=6) / Raw(b"short"),
        Ether(src=ETHER.src, dst=ETHER.dst, type=0x88CC) / Raw(b"lldp"),
        ETHER / Raw(whole[:30]),
    ]
    last = told(write(tmp_path / "other.pcap", packets))[-1]
    head, _, skipped = last.partition("; not shown: ")
    assert head == "0 flows, 0 TCP packets"
    expected = "2 ARP, 2 truncated TCP, 1 IPv6, 1 ICMP, 1 UDP, 1 IP protocol 47, 1 fragment"
    assert skipped == f"{expected}, 1 not IPv4"


# --- bounds and bad files -------------------------------------------------------------------------


def test_reading_stops_at_the_bound(tmp_path: Path) -> None:
    lines = told(write(tmp_path / "all.pcap", connection()), max_packets=3)
    assert lines[-2:] == [
        "1 flow, 3 TCP packets",
        "stopped after 3 TCP packets; filter the capture for more",
    ]
    assert "GET" not in "".join(lines)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"none\.pcap: No such file or directory"):
        told(tmp_path / "none.pcap")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="Is a directory"):
        told(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xd4\xc3",
        b"hello world, no capture at all\n" * 9,
        bytes(100),
        b"\x1f\x8b",  # gzip
        b"\x1f\x8bxxxxxxxx",
        bytes.fromhex("d4c3b2a102000400"),  # half a pcap header
        bytes.fromhex("0a0d0d0a1c000000"),  # half a pcapng section header
    ],
)
def test_a_file_that_is_no_capture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(DecodeError, match="bad: not a pcap or pcapng capture"):
        told(tmp_path / "bad")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_file_is_told_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Cut off anywhere, and a few bytes changed: text or DecodeError, nothing else."""
    path = tmp_path / data.draw(st.sampled_from(["a.pcap", "a.pcapng"]))
    if not path.exists():
        write(tmp_path / "a.pcap", connection())
        with PcapNgWriter(str(tmp_path / "a.pcapng")) as writer:
            for packet in connection():
                writer.write(ETHER / IP(packet))
    content = bytearray(path.read_bytes())
    del content[data.draw(st.integers(0, len(content))) :]
    for at in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=4)):
        content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
    (tmp_path / "damaged").write_bytes(content)
    try:
        lines = told(tmp_path / "damaged")
    except DecodeError:
        return
    assert any("TCP packet" in line for line in lines)


def test_what_is_not_inspected_has_the_servers_own_handshake(tmp_path: Path) -> None:
    service = Service("ssh", VIP[0], VIP[1], 1, inspect="none", backends=(Backend("1", BRIDGE[0]),))
    tos = {"tos": 1 << 2}
    packets = [
        tcp_packet(CLIENT, VIP, seq=C, flags="S", options=OFFER),
        tcp_packet(CLIENT, BRIDGE, seq=C, flags="S", options=OFFER, **tos),
        tcp_packet(VIP, CLIENT, seq=R, ack=C + 1, flags="SA", options=OFFER),
        tcp_packet(CLIENT, BRIDGE, seq=C + 1, ack=R + 1, flags="PA", payload=b"SSH-2.0-x", **tos),
    ]
    lines: list[str] = []
    decode(str(write(tmp_path / "c.pcap", packets)), Config((service,)), lines.append)
    assert any("SYN-ACK  b=5000 the server's own" in line for line in lines)
    assert not any("cookie" in line or "no HTTP" in line for line in lines)
