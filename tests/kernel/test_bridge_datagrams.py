"""Datagrams in the kernel beside Python's translation, and the records that the kernel makes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.core import checksum
from common.core.datagram import Datagram, build
from common.core.errors import MalformedError
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import IP_HEADER
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.program.control import flows
from packetbridge.program.fast_mappings import ANSWER, Answer
from packetbridge.program.fast_path import KernelPath
from tests.kernel.flows import BRIDGE, CLIENT, DSCP, ETHERNET, MARK, NOT_OURS, SERVER, VIP
from tests.soak import Amount
from tests.unit import models

pytestmark = pytest.mark.root

PORT, SERVER_PORT = 53, 5353
OTHER_VIP, OTHER_DSCP = bytes((192, 0, 2, 11)), 10
FRAGMENT = 0x2000


class Place:
    """A bridge for two VIPs whose mappings are the kernel's."""

    def __init__(self, *, local: bool = True, mappings: int = 4096, **backend: Any) -> None:
        self.ledger = Ledger()
        self.path = KernelPath(2, self.ledger.counts, None, mappings)
        settings = {"protocol": "udp", "handoff": False} | backend
        addresses = _text(BRIDGE), PORT, _text(SERVER), SERVER_PORT
        configured = config.Backend(*addresses, **settings)
        self.entries = [
            Entry(configured, dscp, _text(vip), MARK, local, False)
            for dscp, vip in ((DSCP, VIP), (OTHER_DSCP, OTHER_VIP))
        ]
        for entry in self.entries:
            entry.mark = 0  # as packets of a test run have none
        self.core = Bridge(
            self.entries,
            config.Limits(),
            config.Timeouts(),
            Keyring([derive(models.SHARED_KEY)]),
            self.ledger,
            time.monotonic(),
            0.0,
            self.path,
            self.path.mappings,
        )

    def up(self, packet: bytes) -> bytes | None:
        """What the kernel makes of what comes in; None where it leaves it alone."""
        return self._ran("incoming", packet)

    def down(self, packet: bytes) -> bytes | None:
        """What it makes of what leaves, unless Python is to."""
        if self.path.run("unusual", ETHERNET + packet).verdict:
            return None
        return self._ran("outgoing", packet)

    def python(self, packet: bytes) -> bytes | None:
        return self.core.packet(packet, time.monotonic())

    def mappings(self) -> list[str]:
        return sorted(map(str, self.core.datagrams.every(time.monotonic())))

    def _ran(self, program: str, packet: bytes) -> bytes | None:
        verdict, out, _ = self.path.run(program, ETHERNET + packet)
        assert verdict == NOT_OURS
        return None if out == ETHERNET + packet else out[len(ETHERNET) :]


@pytest.fixture
def place() -> Place:
    return Place()


def _text(address: bytes) -> str:
    return ".".join(map(str, address))


def query(
    port: int = 40000, *, dscp: int = DSCP, payload: bytes = b"query", **changes: Any
) -> bytes:
    return build(CLIENT, BRIDGE, port, PORT, payload, tos=dscp << 2, **changes)


def answer(port: int = 40000, payload: bytes = b"answer", **changes: Any) -> bytes:
    return build(SERVER, CLIENT, SERVER_PORT, port, payload, **changes)


# --- the same bytes ---


class Datagrams:
    """Datagrams at random: sound more often than not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def packet(self, src: bytes, dst: bytes, sport: int, dport: int, tos: int) -> bytes:
        pick, bits = self._random.random, self._random.getrandbits
        payload = self._random.randbytes(self._random.choice((0, 1, 2, 7, 64, 600)))
        checked = pick() < 0.8
        packet = bytearray(build(src, dst, sport, dport, payload, tos=tos, checked=checked))
        if checked and len(payload) >= 2 and pick() < 0.3:  # sums on both sides of zero
            packet[-2:] = b"\0\0" if len(payload) % 2 == 0 else packet[-2:]
            packet[26:28] = self._random.choice((b"\xff\xff", b"\xff\xfe", b"\0\x01"))
        if pick() < 0.05:
            packet[26:28] = bits(16).to_bytes(2, "big")
        packet[8] = self._random.choice((0, 1, 2, 64, 255))
        packet[4:6] = bits(16).to_bytes(2, "big")
        packet[6:8] = b"\x40\0" if pick() < 0.95 else bits(16).to_bytes(2, "big")
        if pick() < 0.03:
            packet[24:26] = bits(16).to_bytes(2, "big")
        if pick() < 0.03:
            packet[0] = bits(8)
        if pick() < 0.03:
            packet[9] = bits(8)
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum.internet_checksum(bytes(packet[:20])).to_bytes(2, "big")
        return bytes(packet if pick() < 0.97 else packet[: self._random.randint(20, len(packet))])


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("moved", [False, True])
def test_both_paths_make_the_same_bytes(
    direction: str, moved: bool, amount: Amount, report: Callable[[str], None]
) -> None:
    """``moved``: the server sees another port than the client's, as another VIP has that."""
    packets, place, python = Datagrams(5), Place(), Place()
    if moved:
        for each in (place, python):
            assert each.python(query(dscp=OTHER_DSCP)) is not None
            assert each.python(query()) is not None
    elif direction == "down":
        assert place.python(query()) is not None
        assert python.python(query()) is not None
    sees = [
        m.outbound for m in place.core.datagrams.every(time.monotonic()) if m.entry.dscp == DSCP
    ]
    port = int.from_bytes(sees[0][10:], "big") if moved else 40000
    outcome: Counter[str] = Counter()
    count = amount(20_000, 500_000)
    for number in range(count):
        if direction == "up":
            data = packets.packet(CLIENT, BRIDGE, 40000, PORT, DSCP << 2 | number & 3)
            made = place.up(data)
        else:
            data = packets.packet(SERVER, CLIENT, SERVER_PORT, port, number & 0xFF)
            made = place.down(data)
        if not _plain(data):
            assert made is None or data[6] & 0x3F or data[7], data.hex()
            outcome["left alone"] += 1
            continue
        expected = python.python(data)
        assert made == expected, (
            f"\n{data.hex()}\n{made and made.hex()}\n{expected and expected.hex()}"
        )
        outcome["translated"] += 1
        if number % 100_000 == 0:
            amount.progress(number, count)
    report(f"{direction}: {dict(outcome)}")
    assert min(outcome.values()) > count / 10


def _plain(data: bytes) -> bool:
    try:
        found = Datagram(data)
    except MalformedError:
        return False
    return found.ip_bytes == IP_HEADER.size and found.ttl > 1


# --- the records ---


def test_a_clients_datagram_makes_the_way_for_the_answer(place: Place) -> None:
    assert place.down(answer()) is None, "a direct one"
    made = place.up(query(payload=b"q", ttl=9))
    assert made == build(CLIENT, SERVER, 40000, SERVER_PORT, b"q", ttl=8)
    assert place.down(answer()) == build(VIP, CLIENT, PORT, 40000, b"answer", ttl=63)
    (mapping,) = place.core.datagrams.every(time.monotonic())
    assert str(mapping) == f"{_text(CLIENT)}:40000 -> {_text(SERVER)}:5353"
    gauges = place.core.gauges()
    assert (gauges["fast_datagrams_up"], gauges["fast_datagram_bytes_up"]) == (1, 29)
    assert (gauges["fast_datagrams_down"], gauges["fast_datagram_bytes_down"]) == (1, 34)


def test_a_way_ins_figures_are_the_kernels_as_well(place: Place) -> None:
    """With what many processors have counted."""
    for port in (40000, 40001, 40000):
        place.up(query(port, payload=bytes(72)))
    place.down(answer(payload=bytes(172)))
    for sent in fragments(answer(payload=bytes(2000)), 1480):
        place.path.run("outgoing", ETHERNET + sent)
    _look_through(place, time.monotonic())
    figures, other = (entry.figures for entry in place.entries)
    assert (figures.opened, figures.up_bytes, figures.flows) == (2, 300, 2)
    assert figures.down_bytes == 200 + 1500 + 548
    assert (other.opened, other.up_bytes, other.down_bytes) == (0, 0, 0)
    place.core.reconfigure(place.entries, config.Limits(), config.Timeouts())
    place.up(query(payload=bytes(72)))
    _look_through(place, time.monotonic())
    assert figures.up_bytes == 400


def test_python_sees_the_kernels_mappings_and_the_kernel_pythons(place: Place) -> None:
    place.up(query())
    assert place.python(answer()) == build(VIP, CLIENT, PORT, 40000, b"answer", ttl=63)
    assert place.python(query(40001)) is not None
    assert place.down(answer(40001)) is not None


def test_no_checksum_stays_none_and_zero_becomes_all_ones(place: Place) -> None:
    made = place.up(query(checked=False))
    assert made == build(CLIENT, SERVER, 40000, SERVER_PORT, b"query", ttl=63, checked=False)
    plain = build(CLIENT, SERVER, 40000, SERVER_PORT, b"\0\0", ttl=63)
    zero = place.up(query(payload=plain[26:28]))
    assert zero is not None
    assert zero[26:28] == b"\xff\xff"


def test_a_client_of_two_vips_is_pythons_to_tell_apart_and_then_the_kernels(place: Place) -> None:
    first = place.up(query())
    assert first is not None
    assert place.up(query(dscp=OTHER_DSCP)) is None, "its port is the other VIP's"
    second = place.python(query(dscp=OTHER_DSCP))
    assert second is not None
    assert second[20:22] != first[20:22]
    assert place.up(query(dscp=OTHER_DSCP)) == second, "from now on the kernel knows"
    assert place.up(query()) == first
    for port, vip in ((40000, VIP), (int.from_bytes(second[20:22], "big"), OTHER_VIP)):
        assert place.down(answer(port)) == build(vip, CLIENT, PORT, 40000, b"answer", ttl=63)
    assert len(place.mappings()) == 2


def test_the_bridges_own_source_is_pythons_first(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(source="bridge", ports=(5000, 5001), local=False)
    assert place.up(query()) is None
    assert place.python(query()) is None
    ((_, first),) = place.core.out
    assert first[12:16] == BRIDGE
    assert place.path.mappings.of_client(place.entries[0], query()[12:24], time.monotonic())


def test_what_is_idle_is_nobodys_and_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.core.reconfigure(place.entries, config.Limits(), config.Timeouts(udp=1.0))
    place.up(query())
    place.up(query(40001))
    now = time.monotonic()
    _look_through(place, now)
    assert place.core.gauges()["mappings"] == 2
    assert place.entries[0].figures.flows == 2
    deadline = now + 1.1
    while time.monotonic() < deadline:
        time.sleep(0.05)
        place.up(query(40001))
    assert place.down(answer()) is None
    assert place.down(answer(40001)) is not None
    assert len(list(place.path.mappings.records.keys())) == 2
    _look_through(place, time.monotonic())
    assert len(list(place.path.mappings.records.keys())) == 1
    assert place.core.gauges()["mappings"] == 1
    assert place.core.counts()["mappings_expired"] == 1


def test_what_another_processor_has_just_seen_is_not_idle(place: Place) -> None:
    """Its clock may be read between ours and the record."""
    place.up(query())
    records = place.path.mappings.records
    ((key, record),) = records.items()
    later = Answer(*ANSWER.unpack(record))
    later = later._replace(seen=later.seen + 10**9, began=1)
    records.put(key, ANSWER.pack(*later))
    assert place.down(answer()) is not None
    records.put(key, ANSWER.pack(*later))
    assert place.up(query(dscp=OTHER_DSCP)) is None, "its port is the other VIP's"
    assert place.up(query()) is not None
    ((_, record),) = records.items()
    assert Answer(*ANSWER.unpack(record)).began == 1, "it is not begun anew"


def _look_through(place: Place, now: float) -> None:
    while place.path.mappings.step(now) < now + 1:
        pass


def test_a_full_map_lets_the_oldest_go() -> None:
    place = Place(mappings=512)
    for port in range(1024, 6024):
        assert place.up(query(port)) is not None
    assert 0 < len(place.mappings()) <= 512
    assert place.down(answer(6023)) is not None, "the latest is there"


def test_a_way_in_that_is_gone_is_for_those_that_it_has(place: Place) -> None:
    place.up(query())
    _look_through(place, time.monotonic())
    place.core.reconfigure(place.entries[1:], config.Limits(), config.Timeouts())
    assert place.up(query()) is not None
    assert place.up(query(40001)) is None
    assert place.python(query(40001)) is None
    assert place.core.counts()["datagram_former_entry"] == 1
    assert place.core.former() == [place.entries[0]]


def test_what_an_earlier_run_knew_goes_on(pins: Path) -> None:
    """The maps are pinned: nothing is to be adopted."""
    first = KernelPath(2, Counter(), pins)
    place = Place()
    place.core.datagrams.mappings = first.mappings
    place.core.datagrams.follow()
    packet = query()
    assert first.run("incoming", ETHERNET + packet).packet != ETHERNET + packet
    second = KernelPath(2, Counter(), pins)
    assert second.run("outgoing", ETHERNET + answer()).packet != ETHERNET + answer()
    assert second.run("incoming", ETHERNET + packet).packet != ETHERNET + packet


# --- fragments ---


def fragments(packet: bytes, size: int) -> Iterator[bytes]:
    payload = packet[20:]
    for at in range(0, len(payload), size):
        more = FRAGMENT if at + size < len(payload) else 0
        head = bytearray(packet[:20])
        part = payload[at : at + size]
        head[2:4] = (20 + len(part)).to_bytes(2, "big")
        head[4:6] = b"\x12\x34"
        head[6:8] = (more | at // 8).to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = checksum.internet_checksum(bytes(head)).to_bytes(2, "big")
        yield bytes(head) + part


@pytest.mark.parametrize("last", [1048, 8, 7, 1])  # bytes of it in the last fragment
def test_an_answer_in_fragments_is_translated_whole(place: Place, last: int) -> None:
    place.up(query())
    payload = random.Random(1).randbytes(2 * 1480 - 8 + last)
    whole = build(VIP, CLIENT, PORT, 40000, payload, ttl=63)
    for sent, expected in zip(
        fragments(answer(payload=payload), 1480), fragments(whole, 1480), strict=True
    ):
        verdict, out, _ = place.path.run("outgoing", ETHERNET + sent)
        assert (verdict, out[14:]) == (NOT_OURS, expected)


@pytest.mark.parametrize("left", range(1, 9))
def test_a_last_fragment_of_a_few_bytes_follows_the_others(place: Place, left: int) -> None:
    """It may be shorter than a UDP header."""
    place.up(query())
    whole = build(VIP, CLIENT, PORT, 40000, bytes(1472 + left), ttl=63)
    for sent, expected in zip(
        fragments(answer(payload=bytes(1472 + left)), 1480), fragments(whole, 1480), strict=True
    ):
        verdict, out, _ = place.path.run("outgoing", ETHERNET + sent)
        assert (verdict, out[14:]) == (NOT_OURS, expected)


def test_fragments_of_others_are_left_alone(place: Place) -> None:
    place.up(query())
    for sent in fragments(answer(40001, payload=bytes(4000)), 1480):
        assert place.path.run("outgoing", ETHERNET + sent)[:2] == (NOT_OURS, ETHERNET + sent)
    for sent in fragments(query(payload=bytes(4000)), 1480):
        assert place.up(sent) is None, "the stack's to put together"


# --- traces ---


def test_whom_a_trace_wants_is_pythons_and_the_kernels_again(place: Place) -> None:
    """One that is there already, and one that comes while it runs."""
    known = flows.Flows(place.core)
    place.up(query())
    place.up(query(40002))

    def wanted(flow: Any) -> bool:
        return flow.inbound[8:10] in (b"\x9c\x40", b"\x9c\x41")  # 40000 and 40001

    known.withhold(wanted)
    held = [flow for flow in known.those(wanted) if flow is not None]
    assert [str(each) for each in held] == [f"{_text(CLIENT)}:40000 -> {_text(SERVER)}:5353"]
    known.renew(held[0])
    for port in (40000, 40001):
        assert place.up(query(port)) is None
        assert place.python(query(port)) is not None
        assert place.up(query(port)) is None, "also the next"
        assert place.down(answer(port)) is None
        assert place.python(answer(port)) is not None
    assert place.up(query(40002)) is not None, "others are not held up"
    assert place.up(query(40003)) is None, "who is new may be wanted,"
    assert place.python(query(40003)) is not None
    assert place.up(query(40003)) is not None, "and is not"
    known.withhold(None)
    for flow in known.those(lambda _: True):
        assert flow is not None
        known.renew(flow)
    for port in (40000, 40001, 40004):
        assert place.up(query(port)) is not None
        assert place.down(answer(port)) is not None


def test_all_mappings_are_listed_each_once(place: Place) -> None:
    for port in range(2000, 3000):
        place.up(query(port))
    found = [str(flow) for flow in flows.Flows(place.core).those(lambda _: True)]
    assert len(found) == len(set(found)) == 1000
