"""Datagrams in the kernel beside Python's: the same packets, the same bytes; what is left to it,
what is counted, and what a restart finds."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import DatagramService
from balancer.program.fast_mappings import KernelMappings
from balancer.program.fast_path import KernelPath
from common.adapters.bpf.object import Map
from common.core import checksum
from common.core.datagram import Datagram, build
from common.core.errors import MalformedError
from common.core.segment import IP_HEADER
from tests.kernel.flows import ETHERNET, NOT_OURS
from tests.soak import Amount
from tests.unit.datagram_stage import BRIDGES, CLIENT, VIP, Stage

pytestmark = pytest.mark.root

SOURCE, SERVICE = IPv4Address(CLIENT[0]).packed, IPv4Address(VIP[0]).packed
OTHER_HOST = b"\x02" + ETHERNET[1:]  # as the interface of a test run has an address of zeros
ROOM = 50
# What a datagram's words add up to, if its sum is to be zero, that is all ones, at the first bridge
ONES_THERE = int.from_bytes(SERVICE, "big") - int.from_bytes(IPv4Address(BRIDGES[0]).packed, "big")


@pytest.fixture
def path() -> KernelPath:
    return KernelPath(1, Counter(), mappings=ROOM)


def service(stage: Stage | None = None) -> DatagramService:
    return (stage or Stage()).core.datagram_services[0]


def key(port: int = 0, number: int = 7) -> bytes:
    return (
        SOURCE[:3] + bytes([number]) + SERVICE + port.to_bytes(2, "big") + (53).to_bytes(2, "big")
    )


def mapped(path: KernelPath, at: bytes, backend: int = 0) -> Mapping:
    """A mapping that the kernel has."""
    by = service()
    mapping = Mapping(at, by, list(by.targets)[backend], 0.0)
    path.mappings.steer(mapping)
    path.mappings.settle()
    assert mapping.fast
    return mapping


def datagram(port: int = CLIENT[1], payload: bytes = b"question", **changes: int) -> bytes:
    return build(SOURCE, SERVICE, port, 53, payload, **changes)


def bridge_of(path: KernelPath, data: bytes) -> str | None:
    """Where a packet goes to; None where it is left alone."""
    verdict, out, _ = path.run("steer", ETHERNET + data)
    assert verdict == NOT_OURS  # goes on, there being no route for it in a test run
    return None if out == ETHERNET + data else str(IPv4Address(out[30:34]))


class Datagrams:
    """At random: well-formed more often than not, checksums near all that can be."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def packet(self, port: int) -> bytes:
        pick, dice = self._random.random, self._random
        payload = dice.randbytes(dice.choice((0, 1, 2, 7, 64)))
        length = 8 + len(payload) if pick() < 0.95 else dice.choice((0, 7, 8, 9, 65535))
        sport = port if pick() < 0.97 else 0
        udp = struct.pack("!HHHH", sport, 53, length, 0) + payload
        pseudo = checksum.pseudo_header_sum(SOURCE, SERVICE, 17, length)
        total = pseudo + checksum.word_sum(udp)
        if pick() < 0.3 and len(payload) >= 2:  # sums that are all ones, or will be
            wanted = dice.choice((0, ONES_THERE, dice.getrandbits(16)))
            word = (wanted - total + int.from_bytes(payload[:2], "big")) % 0xFFFF
            payload = word.to_bytes(2, "big") + payload[2:]
            total = pseudo + checksum.word_sum(udp[:8] + payload)
        udp_sum = checksum.from_sum(total) or 0xFFFF
        if pick() < 0.2:  # none, or a wrong one
            udp_sum = dice.choice((0, 0, 0xFFFF, dice.getrandbits(16)))
        udp = udp[:6] + udp_sum.to_bytes(2, "big") + payload
        options = dice.randbytes(4 * dice.randint(0, 10)) if pick() < 0.05 else b""
        words = 5 + len(options) // 4
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words if pick() < 0.98 else dice.getrandbits(8),
            dice.getrandbits(8),
            4 * words + len(udp),
            dice.getrandbits(16),
            dice.choice((0, 0x4000)) if pick() < 0.95 else dice.getrandbits(16),
            dice.choice((0, 1, 2, 64, 255)),
            17 if pick() < 0.98 else dice.getrandbits(8),
            0,
            SOURCE,
            SERVICE,
        )
        head += options
        ip_sum = checksum.updated(0xFFFF, checksum.word_sum(head))
        packet = head[:10] + ip_sum.to_bytes(2, "big") + head[12:] + udp
        return packet if pick() < 0.97 else packet[: dice.randint(20, len(packet))]


def steered(mapping: Mapping, data: bytes) -> bytes | None:
    """What Python makes of it; None where the packet is for Python."""
    try:
        found = Datagram(data)
    except MalformedError:
        return None
    if found.ip_bytes != IP_HEADER.size or found.ttl < 2:
        return None
    return mapping.target.steering.datagram(found)


def test_steering(path: KernelPath, amount: Amount, report: Callable[[str], None]) -> None:
    """Half of the ports have a mapping of their own, at another backend."""
    shared = mapped(path, key())
    own = {port: mapped(path, key(port), 1 + port % 2) for port in range(1, 20)}
    packets, outcome = Datagrams(9), Counter[str]()
    count = amount(50_000, 1_000_000)
    for number in range(count):
        port = 1 + number % 40
        data = packets.packet(port)
        verdict, out, _ = path.run("steer", ETHERNET + data)
        expected = steered(own.get(port, shared), data)
        assert verdict == NOT_OURS
        assert out[14:] == (data if expected is None else expected), data.hex()
        outcome["left alone" if expected is None else "steered"] += 1
        outcome["no checksum"] += expected is not None and data[26:28] == b"\0\0"
        outcome["all ones"] += expected is not None and expected[26:28] == b"\xff\xff"
        if number % 100_000 == 0:
            amount.progress(number, count)
    report(f"{dict(outcome)}")
    assert outcome["left alone"] > count / 10
    assert outcome["steered"] > count / 3
    assert min(outcome["no checksum"], outcome["all ones"]) > count / 500


def test_a_flows_own_mapping_goes_before_the_clients(path: KernelPath) -> None:
    assert bridge_of(path, datagram()) is None
    mapped(path, key(), 0)
    assert bridge_of(path, datagram()) == BRIDGES[0]
    mapped(path, key(CLIENT[1]), 1)
    assert bridge_of(path, datagram()) == BRIDGES[1]
    assert bridge_of(path, datagram(1)) == BRIDGES[0]
    assert bridge_of(path, build(SOURCE, SERVICE, 1, 54, b"")) is None
    assert bridge_of(path, build(SERVICE, SOURCE, 1, 53, b"")) is None


def test_a_frame_for_another_host_is_left_alone(path: KernelPath) -> None:
    mapped(path, key())
    packet = OTHER_HOST + datagram()
    assert path.run("steer", packet)[:2] == (NOT_OURS, packet)


def test_what_the_kernel_saw_is_recalled_and_counted(path: KernelPath) -> None:
    mapping = mapped(path, key())
    for payload in (0, 100):
        path.run("steer", ETHERNET + datagram(payload=bytes(payload)))
    path.run("steer", ETHERNET + datagram(payload=bytes(2500)), struct.pack("176xI", 1000))
    path.mappings.recall(mapping)
    assert (mapping.fast_datagrams, mapping.fast_size) == (5, 28 * 5 + 2600)
    assert abs(mapping.seen - time.monotonic()) < 1
    found = path.gauges()
    assert found["fast_datagrams"] == found["fast_datagrams_unrouted"] == 5
    assert found["fast_datagram_bytes"] == 28 * 5 + 2600
    assert found["fast_packets"] == 0


def test_a_full_table_leaves_the_rest_to_python(path: KernelPath) -> None:
    assert isinstance(path.mappings, KernelMappings)
    by = service()
    mappings = [Mapping(key(1, number), by, next(by.targets), 0.0) for number in range(ROOM + 5)]
    for mapping in mappings:
        path.mappings.steer(mapping)
    path.mappings.settle()
    assert sum(mapping.fast for mapping in mappings) == ROOM
    path.mappings.forget(mappings[0])
    path.mappings.renew(mappings[-1])
    assert mappings[-1].fast
    assert len(list(path.mappings.records.keys())) == ROOM


def test_a_record_that_cannot_be_brought_up_to_date_goes(
    path: KernelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = mapped(path, key())
    monkeypatch.setattr(Map, "put", lambda *_: False)
    path.mappings.renew(mapping)
    assert not mapping.fast
    assert bridge_of(path, datagram()) is None


def test_what_is_withheld_is_pythons_until_it_is_given_back(path: KernelPath) -> None:
    mapping = mapped(path, key())
    path.run("steer", ETHERNET + datagram())
    path.mappings.withhold(lambda each: each is mapping)
    path.mappings.renew(mapping)
    assert bridge_of(path, datagram()) is None
    assert not mapping.fast
    path.mappings.withhold(None)
    path.mappings.renew(mapping)
    assert bridge_of(path, datagram()) == BRIDGES[0]
    path.mappings.forget(mapping)
    assert mapping.datagrams + mapping.fast_datagrams == 2, "none is forgotten on the way"
    assert mapping.size + mapping.fast_size == 2 * len(datagram())


def test_the_core_and_the_kernel_agree(path: KernelPath) -> None:
    """From the first datagram, which is Python's, to the mapping's end."""
    stage = Stage(fast=path, pool={"policy": "round-robin"}, limits={"mappings": 2})
    bridge = stage.send()
    assert bridge_of(path, datagram()) is None, "until the turn is over"
    stage.core.settle()
    assert bridge_of(path, datagram(1)) == bridge
    down = f"b{BRIDGES.index(str(bridge))}"
    stage.check(down, well=False)
    stage.settle()
    assert bridge_of(path, datagram()) is None
    other = stage.send()
    stage.core.settle()
    assert bridge_of(path, datagram()) == other != bridge
    stage.reload(pool={"policy": "round-robin"}, limits={"mappings": 2}, dscp=9)
    assert path.run("steer", ETHERNET + datagram()).packet[15] == 9 << 2
    for number in (1, 2, 3):
        stage.quick((f"198.51.0.{number}", 5))
    stage.core.settle()
    assert bridge_of(path, datagram()) is None, "it has made room"


def test_who_is_heard_of_by_the_kernel_alone_stays(path: KernelPath) -> None:
    stage = Stage(fast=path, limits={"mappings": 2})
    stage.now = time.monotonic() - 1  # the kernel notes no time that is nearly the same
    stage.send()
    stage.quick(("198.51.0.1", 5))
    stage.core.settle()
    stage.now += 1
    path.run("steer", ETHERNET + datagram())
    stage.quick(("198.51.0.2", 5))
    assert key() in stage.table.mappings
    assert stage.count("mappings_evicted") == 1


def test_a_restart_moves_nobody(path: KernelPath) -> None:
    """The records are those that an earlier run would have left."""
    for number in range(40):
        mapped(path, key(0, number), number % 3)
    mapped(path, key(CLIENT[1], 99))  # of another kind of key than is configured now
    later = KernelMappings(path.mappings.records, Counter())  # type: ignore[attr-defined]
    path.mappings = later
    stage = Stage(fast=path, pool={"policy": "round-robin"}, bridges=BRIDGES[:2])
    first = stage.send((str(IPv4Address(key(0, 4)[:4])), 5))
    assert first == BRIDGES[1], "asked for before its turn"
    stage.settle()
    assert stage.count("mappings_adopted") == 27 - 1 * (40 % 3 == 2)
    assert stage.count("mappings_not_adopted") == 14
    assert sum(stage.pending().values()) == len(stage.table.mappings)
    assert all(mapping.fast for mapping in stage.table.mappings.values())
    assert {at[3] for at in stage.table.mappings} == {n for n in range(40) if n % 3 != 2}
