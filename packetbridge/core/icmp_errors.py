"""ICMP errors about what a server sent: their quotation is translated back to the server's terms.

Path-MTU discovery needs it: the server finds its connection by the quoted addresses and ports, and
checks the quoted sequence number against what it has sent (RFC 5927 section 4.1).
"""

from __future__ import annotations

import struct

from common.core import icmp
from common.core.checksum import patch, word_sum
from common.core.errors import Malformed, MalformedError
from common.core.ledger import Ledger, Outcome
from common.core.segment import ECN_BITS, MASK
from packetbridge.core import stamper
from packetbridge.core.flow import Flow
from packetbridge.core.states import State

_IP_SUM, _ICMP_SUM, _TCP_SUM = 10, 2, 16  # where the checksums stand in their headers
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


class Message(Outcome):
    """What became of an ICMP message."""

    TRANSLATED = "icmp_translated"
    UNKNOWN_FLOW = "icmp_unknown_flow"


def translate(data: bytes, inbound: list[dict[bytes, Flow]], ledger: Ledger) -> bytes | None:
    """The verdict on an ICMP error steered here; raises MalformedError where it quotes no TCP.

    ``inbound`` finds flows by DSCP and by the key of the client's packets to this bridge.
    """
    inner, tcp = icmp.quotation(data)
    quoted = icmp.quoted_flow(data)
    if quoted is None:
        raise MalformedError(Malformed.BAD_ICMP)
    key = quoted[4:8] + data[16:20] + quoted[10:] + quoted[8:10]
    flow = inbound[data[1] >> 2].get(key)
    if flow is None or flow.state is State.SYN_SENT:
        return ledger.drop(Message.UNKNOWN_FLOW, data)
    message = bytearray(data)
    _translate_quotation(message, inner, tcp, flow)
    outer = icmp.header_bytes(data)
    if flow.stamper is not None:
        _lower_mtu(message, outer)
    patch(message, outer + _ICMP_SUM, word_sum(message[outer:]) - word_sum(data[outer:]))
    message[1] &= ECN_BITS
    message[16:20] = flow.entry.server
    old = word_sum(data[:outer])
    patch(message, _IP_SUM, word_sum(message[:outer]) - old)
    return ledger.passed(Message.TRANSLATED, bytes(message))


def _translate_quotation(message: bytearray, inner: int, tcp: int, flow: Flow) -> None:
    """The quoted segment as the server sent it: its addresses, ports and sequence number."""
    before = bytes(message[inner:])
    message[inner + 12 : inner + 20] = flow.outbound[:8]
    message[tcp : tcp + 4] = flow.outbound[8:]
    (seq,) = _U32.unpack_from(message, tcp + 4)
    _U32.pack_into(message, tcp + 4, (seq - flow.seq_down) & MASK)
    header = tcp - inner
    change = word_sum(message[inner:tcp]) - word_sum(before[:header])
    patch(message, inner + _IP_SUM, change)
    if len(message) >= tcp + _TCP_SUM + 2:
        quoted = word_sum(message[inner + 12 : inner + 20] + message[tcp : tcp + 8])
        change = quoted - word_sum(before[12:20] + before[header : header + 8])
        patch(message, tcp + _TCP_SUM, change)


def _lower_mtu(message: bytearray, at: int) -> None:
    """What the bridge adds to the server's segments must fit as well (RFC 1191 section 4: the
    next hop's MTU stands in the last two bytes of the ICMP header)."""
    (mtu,) = _U16.unpack_from(message, at + 6)
    if tuple(message[at : at + 2]) == icmp.FRAGMENTATION_NEEDED and mtu > stamper.ADDED:
        _U16.pack_into(message, at + 6, mtu - stamper.ADDED)
