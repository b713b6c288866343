"""How large a packet the way to an address takes, found by pings that no router may fragment.

Nothing else would tell in time: a router's "fragmentation needed" about a packet that was steered
goes to that packet's source, the client, who knows nothing of the address that it quotes.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress

from common.adapters.readable import readable
from common.core.checksum import internet_checksum

# Usual MTUs: Ethernet; PPPoE, IPIP, GRE, VXLAN and WireGuard in it; of unknown tunnels; the least
# of IPv6, and what every IPv4 host takes.
SIZES = (1500, 1492, 1480, 1476, 1450, 1420, 1400, 1380, 1350, 1300, 1280, 1200, 1000, 576)
ROUNDS, WAIT = 3, 0.2  # a ping may be lost; seconds that each round waits for answers
HEADERS = 28  # bytes of IP and ICMP
BUFFER = 8 << 20  # bytes of answers that wait to be read

_ECHO_REPLY, _ECHO = 0, 8
_ICMP = struct.Struct("!BBHHH")
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE
_MTU_DISCOVER, _PROBE = 10, 3  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: what is known is not believed


def path_mtus(known: Mapping[str, int]) -> dict[str, int]:
    """By address, the largest size in bytes that was answered of SIZES and the ``known`` MTU, which
    none exceeds. Where nothing is answered the known one stands. Needs CAP_NET_RAW.
    """
    found = dict.fromkeys(known, 0)
    missing = set(known)
    own = os.getpid() & 0xFFFF
    echoes = {size: _echo(own, size) for size in {*known.values(), *SIZES}}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pings:
        pings.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _PROBE)
        with suppress(OSError):  # a thousand answers come at once; without the right, some get lost
            pings.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, BUFFER)
        for sizes in ((), *[SIZES] * ROUNDS):  # at first only what is most likely right
            for address in missing:
                for size in {known[address], *sizes}:
                    if found[address] < size <= known[address]:
                        with suppress(OSError):  # no way there, or not by the host's own rules
                            pings.sendto(echoes[size], (address, 0))
            _answered(pings, own, known, found, missing)
            if not missing:
                break
    return {address: found[address] or known[address] for address in known}


def _answered(
    pings: socket.socket,
    own: int,
    known: Mapping[str, int],
    found: dict[str, int],
    missing: set[str],
) -> None:
    """Note answers until no address is ``missing`` that of the largest ping, which it tells, or
    there was time for them all."""
    deadline = time.monotonic() + WAIT
    while missing:
        left = deadline - time.monotonic()
        if left <= 0 or not readable(pings, left):
            return
        data, (address, _) = pings.recvfrom(65535)
        at = (data[0] & 15) * 4
        if address in found and len(data) >= at + _ICMP.size:
            kind, _, _, number, size = _ICMP.unpack_from(data, at)
            if kind == _ECHO_REPLY and number == own and size <= known[address]:
                found[address] = max(found[address], size)
                if size == known[address]:
                    missing.discard(address)


def _echo(own: int, size: int) -> bytes:
    """An echo request that makes a packet of ``size`` bytes; its sequence number says so."""
    content = bytes(size - HEADERS)
    checksum = internet_checksum(_ICMP.pack(_ECHO, 0, 0, own, size))
    return _ICMP.pack(_ECHO, 0, checksum, own, size) + content
