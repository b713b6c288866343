"""The kernel's handshakes beside Python's: the same SYN-ACKs, the same cookies taken for ours."""

from __future__ import annotations

import json
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from balancer.core import config, cookie
from balancer.core.catalogue import Catalogue
from balancer.core.engine import Balancer
from balancer.program.fast_path import KernelPath
from common.adapters.bpf.ring import AT_ONCE
from common.core import tcp_options
from common.core.errors import MalformedError
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, SYN, Segment, build_along
from tests.kernel.flows import ETHERNET, NOT_OURS, VIP, service
from tests.kernel.packets import Ends, Packets
from tests.net.namespace import Namespace
from tests.soak import Amount

pytestmark = pytest.mark.root

CLIENT = IPv4Address("192.168.33.77").packed  # beside the namespace's own address
DROPPED, REDIRECTED = 2, 7  # TC_ACT_SHOT, TC_ACT_REDIRECT
KEYS = derive(bytes(range(32)))
EPOCHS = 1_700_000_000 // cookie.EPOCH_SECONDS
BESIDE = 0xC8  # flags that a SYN may have
LEFT = "left alone"


class Hosts:
    """The kernel's program and Python's core, at the same service with the same clock, in a
    namespace that has a way back to the client."""

    def __init__(self, interface: int, address: str) -> None:
        self.service = service()
        self.path = KernelPath(2, Counter())
        self.now = time.monotonic()
        self.offset = EPOCHS * cookie.EPOCH_SECONDS + 10 - self.now  # early in an epoch
        self.core = Balancer(
            Catalogue({}, {}, [self.service]),
            config.Limits(),
            config.Timeouts(),
            Keyring([KEYS]),
            Ledger(),
            self.now,
            self.offset,
        )
        # the interface of the packet, and that it came in by
        self._frame = bytes.fromhex(address.replace(":", "")) + ETHERNET[6:]
        self._context = struct.pack("36xII", interface, interface)
        self.answer()

    def answer(self, seconds: float = 600.0, wall_later: float = 0.0) -> None:
        offset = self.offset + wall_later
        self.path.answer([self.service], KEYS.cookie, time.monotonic() + seconds, offset)

    def kernel(self, packet: bytes, times: int = 1) -> tuple[int, bytes]:
        """Verdict and packet."""
        verdict, out, _ = self.path.run("steer", self._frame + packet, self._context, times)
        return verdict, out[14:]

    def python(self, packet: bytes, ticks: int | None) -> bytes | None:
        """The SYN-ACK, if there is one, where the clock says ``ticks``."""
        wall = time.monotonic() + self.offset
        if ticks is not None:
            now = int(wall * 1000)
            wall = (now + (ticks - now + 2**31) % 2**32 - 2**31 + 0.5) / 1000
        assert self.core.packet(packet, wall - self.offset) is None
        answers = [answer for _, answer in self.core.out]
        self.core.out.clear()
        return answers[0] if answers else None


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    namespace = Namespace("l3dsr-handshake")
    try:
        namespace.shell("sysctl -qw net.ipv4.conf.all.forwarding=1")
        link = json.loads(namespace.shell("ip -j link show eth0"))[0]
        with namespace.entered():
            yield Hosts(link["ifindex"], link["address"])
    finally:
        namespace.delete()


def _syn(packets: Packets, dice: random.Random) -> bytes:
    """Of a packet at random, most often made one that could be answered."""
    data = bytearray(packets.packet(Ends(CLIENT, VIP, dice.randrange(1, 65536), 80), 0))
    if dice.random() < 0.9 and len(data) >= 40 and data[0] == 0x45:
        data[33] = SYN | dice.choice((0, 0, 0, BESIDE, 1, 4, 0x10, 0x20))
    return bytes(data)


def test_syns(hosts: Hosts, amount: Amount, report: Callable[[str], None]) -> None:
    packets, dice = Packets(9), random.Random(9)
    outcome: Counter[str] = Counter()
    count = amount(30_000, 500_000)
    for number in range(count):
        data = _offering(dice) if number % 2 else _syn(packets, dice)
        verdict, out = hosts.kernel(data)
        if verdict == NOT_OURS:
            assert out == data
            assert not _plain_syn(data), data.hex()
            outcome[LEFT] += 1
            continue
        assert verdict == REDIRECTED
        assert _plain_syn(data), data.hex()
        stamps = tcp_options.timestamps(out[40:])
        expected = hosts.python(data, None if stamps is None else stamps[0])
        assert expected is not None
        assert out == expected, f"\n{out.hex()}\n{expected.hex()}\n{data.hex()}"
        outcome["answered"] += 1
        if number % 100_000 == 0:
            amount.progress(number, count)
    report(f"{dict(outcome)}")
    assert outcome["answered"] > count / 4
    assert outcome[LEFT] > count / 10


def _offering(dice: random.Random) -> bytes:
    """What real clients send: any of the options, in any order, padded or not."""
    offers = [
        b"\x02\x04" + dice.choice((536, 1219, 1220, 1400, 1460, 8960, 0)).to_bytes(2, "big"),
        b"\x04\x02",
        b"\x08\x0a" + dice.randbytes(4) + bytes(4),
        b"\x03\x03" + bytes([dice.choice((0, 7, 14, 15, 255))]),
        b"\x01",
        b"\x22\x02",  # TCP Fast Open's request for a cookie
    ]
    options = b"".join(dice.sample(offers, dice.randint(0, len(offers))))
    options += dice.choice((b"\0", b"\1")) * (-len(options) % 4)
    key = CLIENT + VIP + dice.randrange(1, 65536).to_bytes(2, "big") + b"\0\x50"
    return build_along(key, SYN, seq=dice.getrandbits(32), options=options[:40], window=64240)


def _plain_syn(data: bytes) -> bool:
    """Whether the kernel is to answer it."""
    try:
        segment = Segment(data)
        segment.check_checksum()
        offer = tcp_options.offer(segment.options)
        ours = tcp_options.find(segment.options, tcp_options.EXPERIMENT)
    except MalformedError:
        return False
    signed = offer.signed or ours is not None or segment.ip_bytes != 20
    return segment.flags & ~BESIDE == SYN and not segment.payload and not signed


def _key(port: int) -> bytes:
    return CLIENT + VIP + port.to_bytes(2, "big") + b"\0\x50"


def _cookie(hosts: Hosts, key: bytes, c: int, ago: float = 0.0) -> int:
    wall = time.monotonic() + hosts.offset - ago
    return cookie.make(KEYS.cookie, key, c, cookie.Promise(1460, True, 7), wall)


def _ack(key: bytes, c: int, b: int, **changes: object) -> bytes:
    values = {"seq": c + 1, "ack": b + 1, "window": 502} | changes
    return build_along(key, ACK, **values)  # type: ignore[arg-type]


def test_arrivals(hosts: Hosts) -> None:
    dice, expected = random.Random(4), []
    for port in range(1, 2001):
        key, c = _key(port), dice.choice((0xFFFFFFFF, dice.getrandbits(32)))
        b = _cookie(hosts, key, c, dice.choice((0, 64)))
        assert hosts.kernel(_ack(key, c, b))[0] == DROPPED
        expected.append((key, c, b, 0))
        for wrong in ((c + 1, b), (c, b + 256), (c, b ^ 1), (c, b ^ 0x80)):
            packet = _ack(key, *(number % 2**32 for number in wrong))
            assert hosts.kernel(packet) == (NOT_OURS, packet)
    before = time.monotonic()
    found = hosts.path.arrivals()
    assert [arrival[:4] for arrival in found] == expected
    assert all(before - 60 < arrival.seen <= before for arrival in found)
    assert hosts.path.arrivals() == []
    assert hosts.path.gauges()["fast_arrivals"] == 2000


def test_the_round_trip_is_told_by_the_timestamps(hosts: Hosts) -> None:
    key, c = _key(7), 1
    ticks = int((time.monotonic() + hosts.offset) * 1000) % 2**32
    for echo, at_least in ((ticks - 250, 250), (ticks - 61_000, 0)):
        options = tcp_options.encode_timestamps(5, echo % 2**32)
        assert hosts.kernel(_ack(key, c, _cookie(hosts, key, c), options=options))[0] == DROPPED
        (arrival,) = hosts.path.arrivals()
        assert at_least <= arrival.round_trip < at_least + 100


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": b"GET"},
        {"options": b"\1\1\1\1"},
        {"options": b"\x05\x0a" + bytes(8) + b"\1\1"},
    ],
    ids=["data", "padding", "SACK"],
)
def test_what_is_no_bare_acknowledgment_goes_up(hosts: Hosts, changes: dict[str, bytes]) -> None:
    key = _key(9)
    packet = _ack(key, 5, _cookie(hosts, key, 5), **changes)
    assert hosts.kernel(packet) == (NOT_OURS, packet)
    assert hosts.path.arrivals() == []


def test_nothing_is_answered_for_a_program_that_is_away(hosts: Hosts) -> None:
    key = _key(9)
    for packet in (_offering(random.Random(1)), _ack(key, 5, _cookie(hosts, key, 5))):
        assert hosts.kernel(packet)[0] != NOT_OURS
        hosts.answer(seconds=-0.001)
        assert hosts.kernel(packet) == (NOT_OURS, packet)
        hosts.answer()


def test_a_buffer_without_room_leaves_arrivals_to_python(hosts: Hosts) -> None:
    key = _key(9)
    packet = _ack(key, 5, _cookie(hosts, key, 5))
    took = 0
    while hosts.kernel(packet)[0] == DROPPED:
        took += 1
        assert took < 100_000
    assert took == (1 << 17) // 40, "records of 32 bytes with headers of 8"
    assert len(hosts.path.arrivals()) == took
    assert hosts.kernel(packet)[0] == DROPPED


def test_who_arrives_faster_than_is_read_holds_up_nobody(hosts: Hosts) -> None:
    """One acknowledgment, sent again and again: each costs the kernel less than its reader."""
    key = _key(9)
    packet = _ack(key, 5, _cookie(hosts, key, 5))
    flood = threading.Thread(target=hosts.kernel, args=(packet, 3_000_000))
    flood.start()
    taken = []
    while flood.is_alive():
        taken.append(len(hosts.path.arrivals()))
    flood.join()
    assert 0 < max(taken) <= AT_ONCE


def test_a_syn_that_could_not_be_answered_where_it_came_from_goes_up(hosts: Hosts) -> None:
    """By another interface, or from an address that is nobody's: the stack judges sources."""
    for source in ("127.0.0.1", "192.168.33.10", "224.0.0.1", "255.255.255.255", "198.51.100.7"):
        key = IPv4Address(source).packed + VIP + b"\1\1\0\x50"
        packet = build_along(key, SYN, seq=1)
        assert hosts.kernel(packet) == (NOT_OURS, packet), source


def test_a_service_of_another_port_is_not_answered_for(hosts: Hosts) -> None:
    packet = build_along(_key(9)[:10] + b"\0\x51", SYN, seq=1)
    assert hosts.kernel(packet) == (NOT_OURS, packet)
