"""Reads a capture: the packets of a pcap or pcapng file, and their TCP fields.

Importing this module loads scapy, which takes a good part of a second.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scapy.error import Scapy_Exception
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux  # noqa: F401  # captures of interface "any"
from scapy.packet import Packet
from scapy.utils import PcapReader

Address = tuple[str, int]


class DecodeError(Exception):
    """The file cannot be read as a capture; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One TCP packet of a capture. `length` is the payload's by the IP header: of a packet cut
    short by the capture, `payload` holds less. `time` in seconds since the first packet."""

    time: float
    src: Address
    dst: Address
    dscp: int
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes
    length: int
    payload: bytes


def packets(file: str, notes: list[str]) -> Iterator[Packet]:
    """The packets of a file; damage behind the first packet ends them with a note."""
    count = 0
    try:
        with PcapReader(file) as reader:
            for packet in reader:
                count += 1
                yield packet
    except OSError as error:
        raise DecodeError(f"{file}: {error.strerror or error}") from error
    except (Scapy_Exception, EOFError, ValueError, struct.error, zlib.error) as error:
        if not count:
            raise DecodeError(f"{file}: not a pcap or pcapng capture ({error})") from error
        notes.append(f"the capture is damaged after packet {count}: {error}")


def tcp_fields(packet: Packet, start: float) -> Seen | str:
    """A packet's TCP fields, or in a word what it is instead."""
    if IP not in packet:
        found = [name for kind, name in ((ARP, "ARP"), (IPv6, "IPv6")) if kind in packet]
        return found[0] if found else "not IPv4"
    ip = packet[IP]
    if ip.frag or ip.flags.MF:
        return "fragment"
    if ip.proto != 6:
        return {1: "ICMP", 17: "UDP"}.get(ip.proto, f"IP protocol {ip.proto}")
    if not isinstance(ip.payload, TCP) or not ip.ihl or ip.ihl < 5:
        return "truncated TCP"
    tcp = ip.payload
    head = (tcp.dataofs or 0) * 4
    length = (ip.len or len(ip.original)) - ip.ihl * 4 - head  # 0 before segmentation (BIG TCP)
    if head < 20 or length < 0 or len(tcp.original) < head:
        return "truncated TCP"
    return Seen(
        time=float(packet.time) - start,
        src=(ip.src, tcp.sport),
        dst=(ip.dst, tcp.dport),
        dscp=ip.tos >> 2,
        seq=tcp.seq,
        ack=tcp.ack,
        flags=int(tcp.flags),
        window=tcp.window,
        options=tcp.original[20:head],
        length=length,
        payload=tcp.original[head : head + length],
    )
