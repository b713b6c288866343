"""Translation: one client connection and one server connection become one to either peer.

    field        to the server (up)                     to the client (down)
    addresses    -> the server's                        -> VIP and client
    seq          + seq_up                               + seq_down
    ack          - seq_down                             - seq_up
    SACK blocks  - seq_down                             - seq_up
    TSval        + stamp_up                             + stamp_down
    TSecr        - stamp_down                           - stamp_up
    window       << client's scale, where the server    from the server's scale to the promised
                 has none; at most 65535                one, rounded down; at most 65535
    DSCP         0                                      0; the two ECN bits stay
    TTL          one less, where the kernel does not count the hop

seq_down = b - r and stamp_down = the balancer's TSval - the server's, both taken from the server's
SYN-ACK; seq_up and stamp_up are 0 where the server sees the client's own address.

``up`` and ``down`` are the short way for the two layouts that nearly all packets have: no IP
options, and no TCP options or timestamps alone (RFC 7323 appendix A). All else takes ``up_any``
and ``down_any``. Both checksums are updated by differences (RFC 1624), so that damage done on the
way stays visible to the receiver.

An acknowledgment number or a TSecr without its flag (RFC 7323 section 3.2) is not translated.
"""

from __future__ import annotations

import struct

from common.core import handoff, tcp_options
from common.core.segment import (
    ACK,
    ECN_BITS,
    FIN,
    FRAGMENT_BITS,
    MASK,
    RST,
    SYN,
    TCP,
    Segment,
)
from packetbridge.core.flow import Flow

# version and header length, type of service, length, identification, fragment, TTL, protocol,
# checksum, addresses and ports, seq, ack, data offset and flags, window, checksum, urgent pointer
_PLAIN = struct.Struct("!BBHHHBBH4s4sIIIHHHH")
_STAMPED = struct.Struct("!BBHHHBBH4s4sIIIHHHHIII")  # and NOP NOP kind length, TSval, TSecr
_STAMPS = 0x0101080A

PLAIN_FLAGS = FIN | SYN | RST | ACK  # of these a plain packet has ACK alone
ENDING_FLAGS = SYN | RST | ACK  # and one that may end its side


def up(flow: Flow, data: bytes, flags: int = PLAIN_FLAGS) -> bytes | None:
    """The client's packet for the server; None where the short way does not fit it: of ``flags``
    it must have ACK and no other."""
    to = flow.addressing
    translated = _short(
        data,
        flags,
        to.up_source,
        to.up_target,
        to.up_ports,
        to.up_ip,
        to.up_tcp,
        to.seq_up,
        -flow.seq_down,
        to.stamp_up,
        -flow.stamp_down,
        flow.up_window,
        to.up_hop,
    )
    if translated is not None:
        flow.client_ack = int.from_bytes(data[28:32], "big")
    return translated


def down(flow: Flow, data: bytes, flags: int = PLAIN_FLAGS) -> bytes | None:
    """The server's packet for the client; None where the short way does not fit it, as in up."""
    to = flow.addressing
    translated = _short(
        data,
        flags,
        to.down_source,
        to.down_target,
        to.down_ports,
        to.down_ip,
        to.down_tcp,
        flow.seq_down,
        -to.seq_up,
        flow.stamp_down,
        -to.stamp_up,
        flow.down_window,
        to.down_hop,
    )
    if translated is not None:
        flow.server_ack = int.from_bytes(data[28:32], "big")
    return translated


def _short(
    data: bytes,
    only_ack: int,
    new_src: bytes | None,
    new_dst: bytes | None,
    ports_by: int,
    ip_by: int,
    tcp_by: int,
    seq_by: int,
    ack_by: int,
    value_by: int,
    echo_by: int,
    window_by: int,
    hop: int,
) -> bytes | None:
    """The short way of either direction; ``new_src`` and ``new_dst`` replace the addresses where
    given, ``ip_by`` and ``tcp_by`` are what that and the ports add to the checksums, the other
    ``_by`` what is added to a field, ``hop`` what is taken off the TTL."""
    value = echo = new_value = new_echo = kind = 0
    if len(data) >= 52 and data[32] == 0x80:
        (first, tos, length, ident, fragment, ttl, protocol, ip_sum, src, dst, ports, seq, ack,
         flags, window, tcp_sum, urgent, kind, value, echo,
         ) = _STAMPED.unpack_from(data)  # fmt: skip
        if kind != _STAMPS:
            return None
        new_value, new_echo = (value + value_by) & MASK, (echo + echo_by) & MASK
    elif len(data) >= 40 and data[32] == 0x50:
        (first, tos, length, ident, fragment, ttl, protocol, ip_sum, src, dst, ports, seq, ack,
         flags, window, tcp_sum, urgent) = _PLAIN.unpack_from(data)  # fmt: skip
    else:
        return None
    if (
        first != 0x45
        or length != len(data)
        or protocol != TCP
        or fragment & FRAGMENT_BITS
        or flags & only_ack != ACK
        or ttl < hop
    ):
        return None
    new_seq, new_ack = (seq + seq_by) & MASK, (ack + ack_by) & MASK
    new_window = shifted(window, window_by) if window_by else window
    new_tos = tos & ECN_BITS
    grown = (
        tcp_by + new_seq - seq + new_ack - ack + new_window - window
        + new_value - value + new_echo - echo
    )  # fmt: skip
    tcp_sum = (0xFFFF - ((0xFFFF ^ tcp_sum) + grown) % 0xFFFF) % 0xFFFF
    grown = ip_by + new_tos - tos - (hop << 8)
    ip_sum = (0xFFFF - ((0xFFFF ^ ip_sum) + grown) % 0xFFFF) % 0xFFFF
    if kind:
        return _STAMPED.pack(
            first, new_tos, length, ident, fragment, ttl - hop, protocol, ip_sum, new_src or src,
            new_dst or dst, ports + ports_by, new_seq, new_ack, flags, new_window, tcp_sum, urgent,
            kind, new_value, new_echo,
        ) + data[52:]  # fmt: skip
    return _PLAIN.pack(
        first, new_tos, length, ident, fragment, ttl - hop, protocol, ip_sum, new_src or src,
        new_dst or dst, ports + ports_by, new_seq, new_ack, flags, new_window, tcp_sum, urgent,
    ) + data[40:]  # fmt: skip


def up_any(flow: Flow, segment: Segment) -> bytes:
    """The same for any segment; raises MalformedError for options that cannot be read."""
    if flow.stamper is None and (short := up(flow, segment.data, ENDING_FLAGS)) is not None:
        return short
    return up_long(flow, segment)


def down_any(flow: Flow, segment: Segment, now: float) -> bytes:
    """The same for any segment; raises MalformedError for options that cannot be read."""
    if flow.stamper is None and (short := down(flow, segment.data, ENDING_FLAGS)) is not None:
        return short
    return down_long(flow, segment, now)


def up_long(flow: Flow, segment: Segment) -> bytes:
    """The long way up, of whatever flags, options and IP options."""
    flow.client_ack = segment.ack if segment.flags & ACK else flow.client_ack
    options = _options(
        segment, -flow.seq_down, flow.stamp_up, -flow.stamp_down, keep=flow.stamper is None
    )
    return _any(
        segment,
        flow.addressing.up(segment.key),
        seq=segment.seq + flow.seq_up,
        ack_by=-flow.seq_down,
        window=shifted(segment.window, flow.up_window),
        hop=flow.addressing.up_hop,
        options=options,
    )


def down_long(flow: Flow, segment: Segment, now: float) -> bytes:
    """The long way down."""
    flow.server_ack = segment.ack if segment.flags & ACK else flow.server_ack
    options = _options(segment, -flow.seq_up, flow.stamp_down, -flow.stamp_up, keep=True)
    if flow.stamper is not None:
        options = _behind(flow.stamper.option(now), options)
    return _any(
        segment,
        flow.addressing.down(segment.key),
        seq=segment.seq + flow.seq_down,
        ack_by=-flow.seq_up,
        window=shifted(segment.window, flow.down_window),
        hop=flow.addressing.down_hop,
        options=options,
    )


def shifted(window: int, by: int) -> int:
    """``window`` in units 2**``by`` times smaller: never rounded up, at most 65535."""
    return min(window << by, 0xFFFF) if by >= 0 else window >> -by


def _any(
    segment: Segment,
    address: bytes,
    *,
    seq: int,
    ack_by: int,
    window: int,
    hop: int,
    options: bytes,
) -> bytes:
    return segment.rewritten(
        src=address[:4],
        dst=address[4:8],
        sport=int.from_bytes(address[8:10], "big"),
        dport=int.from_bytes(address[10:12], "big"),
        seq=seq & MASK,
        ack=(segment.ack + ack_by) & MASK if segment.flags & ACK else segment.ack,
        window=window,
        options=options,
        tos=segment.tos & ECN_BITS,
        ttl=max(segment.ttl - hop, 0),
    )


def _behind(stamps: bytes, options: bytes) -> bytes:
    """``options`` behind ``stamps``; without room for all, the SACK blocks that fit: the first ones
    say most (RFC 2018 section 4)."""
    room = tcp_options.MAX_BYTES - len(stamps)
    if len(options) <= room:
        return stamps + options
    sack = tcp_options.find(options, tcp_options.SACK)
    if sack is None:
        return stamps
    size = min(len(sack) - 2, room - 4) // 8 * 8
    nop = tcp_options.NOP
    return stamps + bytes((nop, nop, tcp_options.SACK, 2 + size)) + sack[2 : 2 + size]


def _options(segment: Segment, sack_by: int, value_by: int, echo_by: int, keep: bool) -> bytes:
    """The options with SACK edges and timestamps shifted; ours is taken out, and timestamps too
    unless ``keep``: NOPs stand in their place, so that nothing else moves."""
    if not segment.options:
        return b""
    options = bytearray(segment.options)
    for kind, at, length in tcp_options.walk(segment.options):
        if kind == tcp_options.SACK:
            tcp_options.shift_sack(options, at, length, sack_by)
        elif kind == tcp_options.TIMESTAMPS and length == 10:
            if keep:
                echo = echo_by if segment.flags & ACK else 0
                tcp_options.shift_timestamps(options, at, value_by, echo)
            else:
                options[at : at + length] = bytes((tcp_options.NOP,)) * length
        elif kind == tcp_options.EXPERIMENT and options[at + 2 : at + 4] == handoff.PREFIX[2:]:
            options[at : at + length] = bytes((tcp_options.NOP,)) * length
    return bytes(options)
