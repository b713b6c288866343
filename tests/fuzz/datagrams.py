"""UDP clients of a balancer, and the services that they use."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from balancer.core import config
from common.core.datagram import build
from tests.fuzz.mutations import repair
from tests.fuzz.place import PORT, Place

if TYPE_CHECKING:
    from tests.fuzz.world import Fed

POOL = "datagrams"
KEYS = ((), ("source",), ("source-port",))
POLICIES = ("maglev", "rendezvous", "round-robin", "least-pending", "source")
MAPPINGS = 12


def pool(rng: random.Random, backends: tuple[config.Backend, ...]) -> config.Pool:
    """One as good as another."""
    limit = config.RateLimit(rate=rng.choice((0.1, 50.0)), burst=2, tracked=10)
    return config.Pool(
        POOL,
        backends,
        rng.choice(POLICIES),
        key=rng.choice(KEYS),
        table_size=251,
        on_down=rng.choice(("keep", "reset")),
        check=config.Check(rise=1, fall=1) if rng.random() < 0.7 else None,
        limit=limit if rng.random() < 0.2 else None,
    )


def services(rng: random.Random, vips: Sequence[tuple[int, str]]) -> tuple[config.Service, ...]:
    """One for each VIP, at the port that TCP has, too."""
    return tuple(
        config.Service(
            f"{vip}/udp",
            vip,
            PORT,
            dscp,
            POOL,
            protocol="udp",
            inspect="none",
            idle_timeout=rng.choice((None, 5.0)),
        )
        for dscp, vip in vips
    )


class DatagramClient:
    """Sends datagrams from a few ports, and ICMP errors about the answers."""

    def __init__(self, rng: random.Random, place: Place) -> None:
        self._rng, self._place = rng, place

    def script(self) -> Iterator[Fed]:
        rng, place = self._rng, self._place
        address, port = place.client(rng)
        if rng.random() < 0.3:  # forged
            address = rng.randbytes(4)
        _, vip = place.vip(rng)
        for _ in range(rng.choice((1, 1, 3, 20))):
            sport = port + rng.choice((0, 0, 0, 1, 2))
            payload = rng.randbytes(rng.choice((0, 1, 8, 50, 1400)))
            checked = rng.random() < 0.8
            packet = build(
                address, vip, sport, PORT, payload, tos=rng.choice((0, 3)), checked=checked
            )
            draw = rng.random()
            if draw < 0.1:
                packet = self._unusual(bytearray(packet))
            elif draw < 0.15:
                packet = self._error(address, vip, sport)
            yield packet, 0

    def _unusual(self, packet: bytearray) -> bytes:
        rng = self._rng
        kind = rng.randrange(4)
        if kind == 0:
            packet[6:8] = rng.choice((b"\x20\x00", b"\x00\x10", b"\x20\x10"))  # a fragment
        elif kind == 1:
            packet[24:26] = struct.pack("!H", rng.choice((0, 7, 8, 9, 65535)))
        elif kind == 2:
            packet[rng.choice((21, 23))] = 0
            packet[20:22] = bytes(2)
        else:
            packet[0] = 0x46
            packet[20:20] = b"\1\1\1\0"
        return repair(bytes(packet))

    def _error(self, address: bytes, vip: bytes, port: int) -> bytes:
        rng = self._rng
        quoted = build(vip, address, PORT, port, bytes(100))[: rng.choice((27, 28, 60))]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 1, 0, bytes((10, 0, 0, 1)), vip)
        icmp = struct.pack("!BBHHH", rng.choice((3, 3, 11, 12)), 3, 0, 0, 0)
        return repair(head + icmp + quoted)
