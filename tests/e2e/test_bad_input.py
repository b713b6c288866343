"""Packets that no ordinary client or balancer sends: each is dropped by name and harms nobody.

They are made with scapy and by the project's own encoder with the lab's key; a download through the
same programs goes on beside them.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, fragment

from common.adapters import keyfile
from common.core import handoff
from common.core.handoff import Kind
from common.core.keys import Keys, derive
from tests.e2e import web
from tests.e2e.capture import RST, capture
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, LAB, VIP, Lab, until
from tests.e2e.raw import RawSender, new_port, raw_sender, segment

pytestmark = pytest.mark.root

DSCP = 1 << 2  # the lab's VIP, as it stands in the type-of-service byte
REQUEST = web.request("/1k", close=True)
MD5 = (19, bytes(16))  # RFC 2385


class Download:
    """/100m through the VIP, read a little at each test: whoever breaks it is found out."""

    def __init__(self, lab: Lab) -> None:
        self._expected = (LAB / "www" / "100m").open("rb")
        self._tcp = lab.connect()
        self._tcp.sendall(web.request("/100m"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._tcp.recv(1)

    def goes_on(self) -> None:
        """Another megabyte, byte for byte, which the server has yet to send most of."""
        wanted = self._expected.read(1 << 20)
        assert wanted, "the file is too short for so many tests"
        received = b""
        while len(received) < len(wanted):
            part = self._tcp.recv(len(wanted) - len(received))
            assert part, "the download beside has ended"
            received += part
        assert received == wanted

    def close(self) -> None:
        self._tcp.close()
        self._expected.close()


@pytest.fixture(scope="module")
def download(running_lab: Lab) -> Iterator[Download]:
    download = Download(running_lab)
    yield download
    download.close()


@pytest.fixture
def unharmed(lab: Lab, download: Download) -> Iterator[None]:
    """The download goes on, and both programs are the same processes as before."""
    pids = {program: lab.pid(program) for program in ("balancer", "backend1", "backend2")}
    yield
    download.goes_on()
    for program, pid in pids.items():
        assert lab.pid(program) == pid
        assert lab.alive(program)
        assert lab.counters(program).get("internal_error", 0) == 0


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


@pytest.fixture(scope="module")
def keys(running_lab: Lab) -> Keys:
    return derive(keyfile.load(str(LAB / "etc" / "key")))


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
    sender.send(_with_options(segment(new_port(), flags="S"), options))
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
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_preface"),
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


# --- to the bridge ---


@dataclass
class Handoff:
    """A handoff made by hand; its fields are those of one that the bridge takes."""

    keys: Keys
    port: int
    kind: Kind = Kind.HANDOFF
    c: int = 1_000_000
    b: int = 2_000_000
    age: float = 0
    bound_to: int | None = None  # the client ISN that is authenticated, where it is another
    payload: bytes = field(default=REQUEST)

    def packet(self) -> Any:
        message = handoff.Handoff(self.kind, 1460, 0, 7, 7, sack=True)
        addresses = socket.inet_aton(CLIENT) + socket.inet_aton(VIP)
        flow = addresses + struct.pack("!HH", self.port, 80)
        c = self.c if self.bound_to is None else self.bound_to
        binding = handoff.Binding(flow, c, self.b, self.c + 1)
        epoch = handoff.epoch_at(time.time() - self.age)
        option = handoff.encode(self.keys, message, binding, epoch)
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (1001, 5000))]
        tcp = TCP(sport=self.port, dport=80, flags="PA", seq=self.c + 1, ack=self.b + 1, window=512)
        tcp.options = [(option[0], option[2:]), *stamps]
        return IP(src=CLIENT, dst=BRIDGE1, tos=DSCP) / tcp / self.payload


@pytest.mark.usefixtures("unharmed")
def test_handoff_made_by_hand_is_taken(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """The others below are refused for what is named, as this one is not."""
    port = new_port()
    sender.send(Handoff(keys, port).packet(), host="backend1")
    answer = sender.answer(port, lambda packet: bool(packet.payload))
    assert answer.way == (VIP, CLIENT)
    assert answer.seq == 2_000_001
    assert answer.payload.startswith(b"HTTP/1.1 200 OK")


def _refused_handoffs(keys: Keys, port: int) -> dict[str, tuple[str, Handoff]]:
    other_keys = derive(bytes(32))
    return {
        "other key": ("bad_handoff_mac", Handoff(other_keys, port)),
        "other numbers": ("bad_handoff_mac", Handoff(keys, port, bound_to=999)),
        "old": ("old_handoff_epoch", Handoff(keys, port, age=40)),
        "from the future": ("old_handoff_epoch", Handoff(keys, port, age=-40)),
        "an answer": ("not_a_handoff", Handoff(keys, port, kind=Kind.REFUSED)),
    }


@pytest.mark.parametrize("name", _refused_handoffs(derive(bytes(32)), 0))
@pytest.mark.usefixtures("unharmed")
def test_refused_handoff(lab: Lab, sender: RawSender, keys: Keys, name: str) -> None:
    port = new_port()
    reason, refused = _refused_handoffs(keys, port)[name]
    grown = lab.growth("backend1")
    flows = lab.counters("backend1")["flows"]
    sender.send(refused.packet(), host="backend1")
    assert grown.reaches(reason)
    assert lab.counters("backend1")["flows"] <= flows
    assert sender.answers(port) == []


@pytest.mark.parametrize("length", [2, 4, 15, 20])
@pytest.mark.usefixtures("unharmed")
def test_handoff_option_of_another_length(
    lab: Lab, sender: RawSender, keys: Keys, length: int
) -> None:
    packet = Handoff(keys, new_port()).packet()
    option = bytes([253, length]) + b"\x4c\x33" + bytes(16)
    reason = "unknown_flow" if length == 2 else "bad_handoff_option"
    grown = lab.growth("backend1")
    sender.send(_with_options(packet, option[:length].ljust(20, b"\x01")), host="backend1")
    assert grown.reaches(reason)


@pytest.mark.usefixtures("unharmed")
def test_steered_packet_of_unknown_flow(lab: Lab, sender: RawSender, keys: Keys) -> None:
    port = new_port()
    packet = Handoff(keys, port).packet()
    packet[TCP].options = []
    grown = lab.growth("backend1")
    sender.send(packet, host="backend1")
    assert grown.reaches("unknown_flow")
    assert sender.answers(port) == []


@pytest.mark.usefixtures("unharmed")
def test_dscp_of_nobody(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """Not ours: the bridge does not even see it, and the kernel says that nobody listens."""
    port = new_port()
    packet = Handoff(keys, port).packet()
    packet.tos = 5 << 2
    before = lab.counters("backend1")
    sender.send(packet, host="backend1")
    reset = sender.answer(port, lambda packet: bool(packet.flags & RST))
    assert reset.source == BRIDGE1
    after = lab.counters("backend1")
    grown = {name for name, count in after.items() if before.get(name, 0) < count}
    assert grown <= {"packets", "spliced_up", "spliced_down"}, "no more than the download beside"


@pytest.mark.usefixtures("unharmed")
def test_damaged_handoff(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """Each bit of the option turned in turn, checksum right: not one is taken."""
    port = new_port()
    good = Handoff(keys, port)
    option = bytes(good.packet()[TCP])[20:36]
    grown = lab.growth("backend1")
    for bit in range(16, 128):  # kind and length apart
        damaged = bytearray(option)
        damaged[bit // 8] ^= 1 << bit % 8
        stamps = bytes(good.packet()[TCP])[36:48]
        sender.send(_with_options(good.packet(), bytes(damaged) + stamps), host="backend1")
    names = ("bad_handoff_mac", "bad_handoff_option", "not_a_handoff", "unknown_flow",
             "unknown_flow_reset")  # fmt: skip
    until(lambda: sum(map(grown, names)) == 112, 5, "each is dropped by name")
    assert grown("bad_handoff_mac") > 80
    assert [packet for packet in sender.answers(port) if packet.payload] == []


@pytest.mark.usefixtures("unharmed")
def test_replayed_handoff(lab: Lab, sender: RawSender) -> None:
    """Recorded on the balancer's link, sent again while its connection still lingers."""
    path = lab.path_for("1k", "backend1") + "?replayed"
    packet = _recorded_handoff(lab, path)
    grown = lab.growth("backend1")
    for _ in range(5):
        sender.send(packet, host="backend1")
    until(lambda: grown("handoffs_again") + grown("handoff_again") == 5, 2, "all are known")
    assert _logged(lab, "?replayed") == 1


@pytest.mark.usefixtures("unharmed")
def test_replayed_handoff_to_another_bridge(lab: Lab, sender: RawSender) -> None:
    """It is authentic there, too; but there it opens a connection of the client's address only,
    whose answer the client does not know, and resets."""
    path = lab.path_for("1k", "backend1") + "?elsewhere"
    packet = bytearray(_recorded_handoff(lab, path))
    moved = IP(bytes(packet))
    moved.dst = BRIDGE2
    del moved.chksum
    del moved[TCP].chksum
    sender.send(bytes(moved), host="backend2")
    with lab.connect() as tcp:
        tcp.sendall(web.request(path, close=True))
        assert b"200 OK" in web.rest(tcp)


# --- to the balancer: what a bridge would answer ---


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Kind.ACCEPTED, "bad_answer_mac"),
        (Kind.REFUSED, "bad_answer_mac"),
        (Kind.HANDOFF, "not_an_answer"),
        (Kind.FORGET, "not_an_answer"),
    ],
)
@pytest.mark.usefixtures("unharmed")
def test_forged_answer(lab: Lab, sender: RawSender, kind: Kind, reason: str) -> None:
    """With another key, for a connection that is alive: it stays so."""
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k"))
        web.response(tcp)
        forged = Handoff(derive(bytes(32)), tcp.getsockname()[1], kind=kind, payload=b"").packet()
        forged.dst, forged.tos = VIP, 0
        grown = lab.growth("balancer")
        sender.send(forged)
        assert grown.reaches(reason)
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200


@pytest.mark.usefixtures("unharmed")
def test_answer_for_unknown_flow(lab: Lab, sender: RawSender, keys: Keys) -> None:
    answer = Handoff(keys, new_port(), kind=Kind.REFUSED, payload=b"").packet()
    answer.dst, answer.tos = VIP, 0
    grown = lab.growth("balancer")
    sender.send(answer)
    assert grown.reaches("answer_for_unknown_flow")


# --- with configurations of their own (the download above is over), and everything at once ---


def test_handoff_of_a_connection_that_is_forgotten(lab: Lab, sender: RawSender) -> None:
    """Once the flow is gone, a note of it refuses the same handoff."""

    def forgetful(text: str) -> str:
        return text + "\n[timeouts]\nidle = 1.0\nclosing = 1.0\nlinger = 0.0\n"

    with lab.configured(backend1=forgetful):
        path = lab.path_for("1k", "backend1") + "?forgotten"
        packet = _recorded_handoff(lab, path)
        until(lambda: lab.counters("backend1")["flows"] == 0, 6, "the bridge forgets the flow")
        grown = lab.growth("backend1")
        sender.send(packet, host="backend1")
        assert grown.reaches("handoff_again")
        assert lab.counters("backend1")["flows"] == 0
    assert _logged(lab, "?forgotten") == 1


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
        data = _with_options(header, dice.randbytes(4 * dice.randrange(0, 10)))
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


def _with_options(packet: Any, options: bytes) -> bytes:
    """The packet with these bytes as its TCP options, whatever they are; checksums are right."""
    tcp = packet[TCP].copy()
    tcp.options, payload = [], bytes(packet[TCP].payload)
    tcp.remove_payload()
    tcp.dataofs, tcp.chksum = 5 + len(options) // 4, 0
    data = bytearray(bytes(tcp)[:20] + options + payload)
    pseudo = socket.inet_aton(packet.src) + socket.inet_aton(packet.dst)
    pseudo += struct.pack("!HH", 6, len(data))
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + b"\0" * (len(data) % 2)))
    total += sum(struct.unpack("!6H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, 16, 0xFFFF ^ total)
    header = packet.copy()
    header.remove_payload()
    header.len, header.proto = 20 + len(data), 6
    return bytes(header) + bytes(data)


def _recorded_handoff(lab: Lab, path: str) -> bytes:
    """A handoff as it left the balancer, of a connection that has since been closed."""
    with capture(lab, "balancer") as packets:
        assert lab.curl(path).status == 200
    handoffs = [packet for packet in packets.packets if 253 in packet.options and packet.outgoing]
    assert len(handoffs) == 1
    assert handoffs[0].destination == BRIDGE1
    return handoffs[0].data


def _logged(lab: Lab, word: str) -> int:
    """Requests with a word that the server of backend1 has logged."""
    log = (LAB / "log" / "nginx-backend1.access.log").read_text()
    return log.count(f"{word} HTTP")
