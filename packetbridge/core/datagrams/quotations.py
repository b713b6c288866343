"""ICMP errors that quote datagrams, in the terms of whoever is to read them.

Those of the server's host (its port is closed: RFC 1122 section 4.1.3.1) go to the client as from
the VIP, which is where the client has sent to. Those of the client's side, steered here by the
balancer, go to the server, which learns of a narrow path by them.
"""

from __future__ import annotations

import struct

from common.core import datagram, icmp
from common.core.checksum import patch, word_sum
from common.core.datagram import UDP
from common.core.errors import Malformed, MalformedError
from common.core.ledger import Ledger, Outcome
from common.core.segment import ECN_BITS
from packetbridge.core.datagrams.mapping import Mapping
from packetbridge.core.datagrams.mappings import Mappings
from packetbridge.core.icmp_errors import Message
from packetbridge.core.ways import Ways

_IP_SUM, _ICMP_SUM, _UDP_SUM = 10, 2, 6  # where the checksums stand in their headers
_U16 = struct.Struct("!H")


class OfServer(Outcome):
    """ICMP errors of a server's host."""

    TRANSLATED = "icmp_of_server"  # to the client, as from the VIP
    NOT_OURS = "icmp_of_server_host"  # about no datagram of ours: let by


def is_of_server(data: bytes, ways: Ways) -> bool:
    """Whether an ICMP packet is of a server's host, about something that was sent to it."""
    return data[12:16] in ways.datagram_hosts and data[12:16] == _quoted_target(data)


def translate(
    data: bytes, ways: Ways, mappings: Mappings, ledger: Ledger, now: float
) -> bytes | None:
    """The verdict on an ICMP error of a server's host, or one that quotes a datagram and was
    steered here; raises MalformedError where it cannot be read."""
    if is_of_server(data, ways):
        return _to_client(data, mappings, ledger, now)
    quoted = _quoted(data)
    if quoted is None:
        raise MalformedError(Malformed.BAD_ICMP)
    key = quoted[4:8] + data[16:20] + quoted[10:] + quoted[8:10]
    port = int.from_bytes(key[10:], "big")
    entry = ways.datagrams.get((data[16:20], data[1] >> 2, port))
    mapping = None if entry is None else mappings.of_client(entry, key, now)
    if mapping is None or quoted[:4] != mapping.entry.vip:
        return ledger.drop(Message.UNKNOWN_FLOW, data)
    ends = data[12:16], mapping.entry.server
    return ledger.passed(Message.TRANSLATED, _rewritten(data, mapping.outbound, ends))


def _to_client(data: bytes, mappings: Mappings, ledger: Ledger, now: float) -> bytes | None:
    """What cannot be read is somebody else's, too."""
    try:
        quoted = _quoted(data)
    except MalformedError:
        quoted = None
    mapping = None
    if quoted is not None:
        answer = quoted[4:8] + quoted[:4] + quoted[10:] + quoted[8:10]
        mapping = mappings.of_server(answer, now)
    if mapping is None:
        return ledger.passed(OfServer.NOT_OURS, data)
    return ledger.passed(OfServer.TRANSLATED, _about(data, mapping))


def _about(data: bytes, mapping: Mapping) -> bytes:
    """The error as the VIP would send it to the client: of the datagram as the client sent it."""
    ends = mapping.entry.vip, mapping.inbound[:4]
    return _rewritten(data, mapping.client_key, ends)


def _rewritten(data: bytes, quoted: bytes, ends: tuple[bytes, bytes]) -> bytes:
    """The error from the first of ``ends`` to the second, with DSCP 0, and with the 12-byte key
    ``quoted`` in the datagram that it quotes; all checksums by the difference."""
    inner, udp = icmp.quotation(data)
    outer = icmp.header_bytes(data)
    message = bytearray(data)
    message[inner + 12 : inner + 20] = quoted[:8]
    message[udp : udp + 4] = quoted[8:]
    change = word_sum(message[inner:udp]) - word_sum(data[inner:udp])
    patch(message, inner + _IP_SUM, change)
    addresses = word_sum(message[inner + 12 : inner + 20]) - word_sum(data[inner + 12 : inner + 20])
    ports = word_sum(message[udp : udp + 4]) - word_sum(data[udp : udp + 4])
    (old,) = _U16.unpack_from(message, udp + _UDP_SUM)
    _U16.pack_into(message, udp + _UDP_SUM, datagram.updated(old, addresses + ports))
    patch(message, outer + _ICMP_SUM, word_sum(message[outer:]) - word_sum(data[outer:]))
    message[1] &= ECN_BITS
    message[12:20] = ends[0] + ends[1]
    patch(message, _IP_SUM, word_sum(message[:outer]) - word_sum(data[:outer]))
    return bytes(message)


def _quoted(data: bytes) -> bytes | None:
    """The quoted datagram's 12-byte key; None where what is quoted is not the beginning of one.
    Raises MalformedError."""
    found = icmp.quoted_key(data)
    return found[1] if found is not None and found[0] == UDP else None


def _quoted_target(data: bytes) -> bytes:
    """What it was about was sent there; empty where that cannot be read."""
    at = icmp.header_bytes(data) + icmp.HEADER_BYTES + 16
    return data[at : at + 4]
