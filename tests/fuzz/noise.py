"""Packets of nobody's connection: scapy's fuzz, and bytes that are hardly packets."""

from __future__ import annotations

import random
from typing import Any

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw, fuzz

from tests.fuzz.mutations import mutated, repair

Ends = tuple[str, str, int | None, int | None]  # source, destination, their ports; None for any

POOL = 400  # made by scapy, which takes a millisecond for each; all others are changed from these


class Noise:
    """``ends`` are what such packets go by, one of them drawn for each."""

    def __init__(self, rng: random.Random, ends: list[Ends]) -> None:
        self._rng = rng
        state = random.getstate()
        random.seed(rng.getrandbits(32))  # which scapy draws from
        conf.verb = 0
        try:
            self._pool = [self._fuzzed(*rng.choice(ends)) for _ in range(POOL)]
        finally:
            random.setstate(state)

    def packet(self) -> bytes:
        rng = self._rng
        draw = rng.random()
        if draw < 0.03:
            return rng.randbytes(rng.randrange(120))
        packet = rng.choice(self._pool)
        if draw < 0.5:
            packet = mutated(rng, packet, rng.choice(self._pool))
        return repair(packet) if draw < 0.8 else packet

    def _fuzzed(self, src: str, dst: str, sport: int | None, dport: int | None) -> bytes:
        rng = self._rng
        ports: dict[str, Any] = {} if dport is None else {"dport": dport}
        if sport is not None:
            ports["sport"] = sport
        inner = rng.choice((TCP, TCP, TCP, UDP, ICMP))
        layer = fuzz(inner(**(ports if inner is not ICMP else {})))
        header = IP(src=src, dst=dst) if rng.random() < 0.7 else fuzz(IP(src=src, dst=dst))
        try:
            return bytes(header / layer / Raw(rng.randbytes(rng.choice((0, 0, 8, 200)))))[:1500]
        except Exception:  # scapy cannot build all that it draws
            return bytes(IP(src=src, dst=dst) / TCP(**ports))
