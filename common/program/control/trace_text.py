"""What `trace` prints: packets decoded by scapy, what became of them, and why."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from scapy.utils import PcapWriter

from common.core.segment import ACK, SYN
from common.program.decoding.capture import Address, Seen, tcp_fields
from common.program.decoding.wording import (
    answer_words,
    at,
    handoff_option,
    offer_words,
    plural,
    tcp_words,
)

RAW_IP = 101  # the link type of packets without a link


class Traced:
    """Tells notes of packets, one after the other, in lines. Sequence numbers are counted from the
    first that each side was seen to begin with, or else to have."""

    def __init__(self) -> None:
        self._bases: dict[tuple[Address, Address], int] = {}

    def lines(self, note: dict[str, Any]) -> Iterator[str]:
        """The lines of one note."""
        if "in" in note:
            packet = _packet(note["in"])
            yield f"{_clock(note['time'])} in    {self._words(packet)}"
            yield from self._verdict(note)
        else:
            yield f"{_clock(note['time'])}       without a packet of this client, by time or word:"
        for sent in note.get("sent", ()):
            yield _further("sent", self._words(_packet(sent)))
        reasons = ", ".join(note.get("reasons", ()))
        if reasons:
            yield _further("why", reasons)
        for why in note.get("why", ()):
            yield _further("why", why)
        if note.get("missed"):
            yield _further("", f"… and {note['missed']} more that came faster than they were read")

    def _verdict(self, note: dict[str, Any]) -> Iterator[str]:
        verdict = note["verdict"]
        if verdict == "drop":
            yield _further("end", "goes no further")
        elif verdict == "unchanged":
            yield _further("on", "as it came")
        else:
            yield _further("on", self._words(_packet(verdict)))

    def _words(self, packet: Packet) -> str:
        seen = tcp_fields(packet, 0.0)
        if isinstance(seen, str):
            return _datagram(packet) if isinstance(packet.payload, UDP) else str(packet.summary())
        way = f"{at(seen.src)} > {at(seen.dst)}" + f" dscp={seen.dscp}" * (seen.dscp > 0)
        option, fault = handoff_option(seen.options)
        base, other = self._numbers(seen)
        if option is not None and option.to_balancer:
            return f"{way}  {answer_words(seen, base, option)}{fault}"
        words = [way, f" {tcp_words(seen, base, other)}"]
        if seen.flags & SYN:
            words.append(offer_words(seen.options))
        if option is not None:
            words.append(option.mysummary())
        if seen.payload:
            words.append(_beginning(seen.payload))
        return " ".join(words) + fault

    def _numbers(self, seen: Seen) -> tuple[int, int]:
        """The numbers that seq and ack are told from."""
        ours, theirs = (seen.src, seen.dst), (seen.dst, seen.src)
        if seen.flags & SYN:
            self._bases[ours] = seen.seq
        base = self._bases.setdefault(ours, seen.seq - 1)
        if seen.flags & ACK:
            return base, self._bases.setdefault(theirs, seen.ack - 1)
        return base, self._bases.get(theirs, 0)


class Capture:
    """The packets of notes in a file that tcpdump and the like read, as they were on the wire: each
    that came, each that went on or was sent. The marks and reasons are not in it."""

    def __init__(self, file: Path) -> None:
        self._writer = PcapWriter(str(file), linktype=RAW_IP, sync=True)
        self._writer.write_header(None)

    def write(self, note: dict[str, Any]) -> None:
        found = [note[name] for name in ("in", "verdict") if name in note]
        for text in (*found, *note.get("sent", ())):
            if text not in ("drop", "unchanged"):
                seconds = int(note["time"])
                micros = int((note["time"] - seconds) * 1e6)
                self._writer.write_packet(b64decode(text), sec=seconds, usec=micros)

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._writer.close()


def _datagram(packet: Packet) -> str:
    udp, dscp = packet[UDP], packet.tos >> 2
    way = f"{packet.src}:{udp.sport} > {packet.dst}:{udp.dport}" + f" dscp={dscp}" * (dscp > 0)
    return f"{way}  udp {plural(len(udp.payload), 'byte')}"


def _packet(text: str) -> Packet:
    return IP(b64decode(text))


def _further(word: str, text: str) -> str:
    return f"{'':15} {word:5} {text}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1e6):06}"


def _beginning(payload: bytes) -> str:
    """A payload's first line, as far as it is printable."""
    line = payload.partition(b"\r\n")[0][:80]
    return repr(line.decode("ascii", "backslashreplace"))
