"""Connections recorded in the lab, spoken again by the world's clients.

What is recorded are the packets that each program's queue takes. Addresses and ports become the new
client's; numbers that the core chooses anew are shifted; the handoff option is written again, since
it vouches for all of those. `python -m tests.fuzz.record` makes the recordings.
"""

from __future__ import annotations

import struct
from pathlib import Path

from common.core import handoff
from common.core.keys import Keys
from common.core.segment import RST, SYN, Segment

CAPTURES = Path(__file__).parent / "captures"
SERVER = bytes((192, 168, 33, 30))  # the lab's first
MASK = 0xFFFFFFFF
_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_RAW_IP = 101  # LINKTYPE_RAW


def write(file: Path, packets: list[bytes]) -> None:
    """A pcap file, without times."""
    parts = [_FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP)]
    parts += [_RECORD.pack(0, 0, len(packet), len(packet)) + packet for packet in packets]
    file.write_bytes(b"".join(parts))


def read(file: Path) -> list[bytes]:
    data, at, packets = file.read_bytes(), _FILE.size, []
    while at < len(data):
        length = _RECORD.unpack_from(data, at)[2]
        at += _RECORD.size
        packets.append(data[at : at + length])
        at += length
    return packets


def connections(program: str) -> list[list[Segment]]:
    """The packets that a program's queue took, by connection, in their order."""
    found: dict[tuple[bytes, int], list[Segment]] = {}
    for packet in read(CAPTURES / f"{program}.pcap"):
        segment = Segment(packet)
        ours = segment.src == SERVER
        end = (segment.dst, segment.dport) if ours else (segment.src, segment.sport)
        found.setdefault(end, []).append(segment)
    return list(found.values())


def first_numbers(connection: list[Segment]) -> tuple[int, int] | None:
    """The initial sequence numbers of client and balancer: its first segment has them."""
    for segment in connection:
        if segment.src != SERVER and not segment.flags & (SYN | RST):
            return (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
    return None


def renewed(options: bytes, keys: Keys, binding: handoff.Binding, epoch: int) -> bytes:
    """``options`` with our own in it made anew for ``binding``."""
    old = handoff.find(options)
    if old is None:
        return options
    return options.replace(old, handoff.encode(keys, handoff.decode(old), binding, epoch))
