"""The handoff option: one TCP option that gives a connection to a bridge, and the answers to it.

A TCP option of experimental kind 253 with an experiment identifier (RFC 6994), 16 bytes:

    bytes  field
    1,1,2  kind 253, length 16, ExID
    2      MSS of the client's SYN in units of 4 bytes (12 bits, rounded down);
           code of the client's round-trip time (4 bits, index into RTT_STEPS)
    1      window scales: the client's, the one promised to it (4 bits each, 15 = none)
    1      epoch (4 bits), SACK permitted (1 bit), kind of message (3 bits)
    8      SipHash-2-4 over those four bytes, the epoch, the connection's addresses and ports as the
           client sees them, both initial sequence numbers and the segment's own sequence number;
           of an answer also the payload, and for ACCEPTED and REFUSED, which are about one bridge's
           attempt at a connection, the bridge's address and the attempt's number

All integers in network order; the hash stands as its eight bytes come. The hash's key differs by
direction, so that an answer cannot be turned round and sent back as a handoff. It covers the whole
number of the epoch, of which the option says the last four bits: what was recorded is of no use
when those come round again.

A connection that a bridge has given back (REFUSED), or was told to forget, may come to the same
bridge again: as another attempt, whose number, from 0 on, is under the hash and nowhere else. So a
handoff opens a connection once, however often it is repeated or replayed, and what a bridge says of
one attempt, or one bridge says of another's, is never believed of the attempt that is under way.

What the segment says by itself is not said again: its sequence number is c + 1, its acknowledgment
b + 1 and its timestamps those of the balancer, where c and b are the client's and the balancer's
initial sequence numbers.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from common.core import tcp_options
from common.core.errors import Malformed, MalformedError
from common.core.keys import Keys
from common.core.segment import Segment
from common.core.siphash import siphash24

EXID = 0x4C33
LENGTH = 16
PREFIX = struct.pack("!BBH", tcp_options.EXPERIMENT, LENGTH, EXID)
EPOCH_SECONDS = 8
ATTEMPTS = 4  # of one bridge at one connection: numbers 0 to 3
EPOCH_SLACK = 1  # epochs that the two hosts' clocks, and the way, may differ by

# Milliseconds; a code means "at least that". Steps of about a third are as near as a first sample
# of a path's round trip means anything, and fit in four bits.
RTT_STEPS = (0, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 300, 400, 600, 1000)

_FIELDS = struct.Struct("!HBB")
_ENDED = struct.Struct("!4s2s8s")  # client's address, its port, initial sequence numbers
ENDED_BYTES = _ENDED.size
MOST_ENDED = 64  # connections in one payload, which is then of 896 bytes: no path is too narrow
_MAC_INPUT = struct.Struct("!4sI12sIII")


class Kind(IntEnum):
    """Messages. Those of 4 and above go from bridge to balancer."""

    HANDOFF = 0
    HANDOFF_CONFIRM = 1  # the balancer has acknowledged these bytes: answer with ACCEPTED
    FORGET = 2  # a newer connection of these addresses went to another bridge
    ASK_TIME = 3  # of no connection; an ACCEPTED answers it: see common.core.clock_exchange
    ACCEPTED = 4  # sequence number: the next byte that the bridge lacks
    REFUSED = 5  # the backend cannot be reached; the held segment comes back in it: try another
    ENDED = 6  # both sides have ended the connection, or one has reset it; and those in the payload


_KINDS = tuple(Kind)


class Handoff(NamedTuple):
    """The option's content. ``mss`` in bytes, ``rtt`` in milliseconds (a step of RTT_STEPS)."""

    kind: Kind
    mss: int
    rtt: int
    client_scale: int
    promised_scale: int
    sack: bool


class Binding(NamedTuple):
    """What the hash binds a message to: the connection as the client sees it.

    ``flow`` is the 12-byte key client, VIP, client port, service port; ``c`` and ``b`` the initial
    sequence numbers of client and balancer; ``seq`` that of the segment which carries the option;
    ``rest`` an answer's payload: what ENDED says of other connections, the client's bytes that
    REFUSED returns; ``bridge`` (4 bytes) whose ACCEPTED or REFUSED it is; ``attempt`` the number of
    the attempt at that bridge.
    """

    flow: bytes
    c: int
    b: int
    seq: int
    rest: bytes = b""
    bridge: bytes = b""
    attempt: int = 0


def rtt_code(milliseconds: float) -> int:
    """The code of the largest step that is not above ``milliseconds``."""
    return max(bisect_right(RTT_STEPS, milliseconds) - 1, 0)


def epoch_at(wall: float) -> int:
    """The number of the epoch at ``wall``, in seconds since 1970."""
    return int(wall) // EPOCH_SECONDS


def encode(keys: Keys, message: Handoff, binding: Binding, epoch: int) -> bytes:
    """The 16 bytes of the option, valid in ``epoch`` (a number as epoch_at gives) and the ones
    beside it."""
    fields = _FIELDS.pack(
        min(message.mss // 4, 0xFFF) << 4 | rtt_code(message.rtt),
        message.client_scale << 4 | message.promised_scale,
        (epoch & 15) << 4 | message.sack << 3 | message.kind,
    )
    return PREFIX + fields + _mac(keys, message.kind, fields, binding, epoch)


def encode_ended(others: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The payload of ENDED: connections to the same VIP and port that are over as well, each by
    its 12-byte key and 8 bytes of initial sequence numbers, the client's first."""
    return b"".join(_ENDED.pack(key[:4], key[8:10], isns) for key, isns in others)


def decode_ended(payload: bytes, key: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What encode_ended was given; ``key`` is that of the segment which carries it.

    Raises MalformedError(BAD_HANDOFF_OPTION) for a payload of another size.
    """
    if len(payload) % _ENDED.size:
        raise MalformedError(Malformed.BAD_HANDOFF_OPTION)
    for client, port, isns in _ENDED.iter_unpack(payload):
        yield client + key[4:8] + port + key[10:], isns


def find(options: bytes) -> bytes | None:
    """Our option among a segment's ``options``, or None.

    Raises MalformedError: BAD_TCP_OPTIONS, or BAD_HANDOFF_OPTION for our ExID in a wrong length.
    """
    if len(options) == 12 and options.startswith(tcp_options.TIMESTAMPS_PREFIX):
        return None  # as nearly all segments have them
    if len(options) >= LENGTH and options.startswith(PREFIX):
        return options[:LENGTH]
    for kind, at, length in tcp_options.walk(options):
        if kind == tcp_options.EXPERIMENT and options[at + 2 : at + 4] == PREFIX[2:]:
            if length != LENGTH:
                raise MalformedError(Malformed.BAD_HANDOFF_OPTION)
            return options[at : at + length]
    return None


def decode(option: bytes) -> Handoff:
    """Read the 16 bytes that find gave. Authentic only once verify says so.

    Raises MalformedError(BAD_HANDOFF_OPTION) for a kind of message that is not known.
    """
    mss_rtt, scales, rest = _FIELDS.unpack_from(option, len(PREFIX))
    if rest & 7 >= len(_KINDS):
        raise MalformedError(Malformed.BAD_HANDOFF_OPTION)
    return Handoff(
        kind=_KINDS[rest & 7],
        mss=(mss_rtt >> 4) * 4,
        rtt=RTT_STEPS[mss_rtt & 15],
        client_scale=scales >> 4,
        promised_scale=scales & 15,
        sack=bool(rest & 8),
    )


def authentic(keys: Keys, option: bytes, binding: Binding, wall: float) -> bool:
    """Whether the option's hash is right for ``binding`` and the epoch it says, near ``wall``."""
    fields = option[len(PREFIX) : len(PREFIX) + _FIELDS.size]
    epoch = epoch_of(option, wall)
    return _mac(keys, fields[3] & 7, fields, binding, epoch) == option[-8:]


def signer(accepted: Iterable[Keys], option: bytes, binding: Binding, wall: float) -> Keys | None:
    """The keys that the option is authentic under; None if it is under none."""
    for keys in accepted:
        if authentic(keys, option, binding, wall):
            return keys
    return None


def timely(option: bytes, wall: float) -> bool:
    """Whether the option's epoch is within EPOCH_SLACK of that of ``wall``."""
    return abs(_ahead(option, wall)) <= EPOCH_SLACK


def epoch_of(option: bytes, wall: float) -> int:
    """The number of the option's epoch, of which it says four bits: the nearest to ``wall``."""
    return epoch_at(wall) + _ahead(option, wall)


def segment_options(segment: Segment, option: bytes) -> bytes:
    """``option`` and the timestamps of ``segment``, all that a handoff carries.

    SACK blocks and whatever else the client sent are left out: the MSS that the client was told
    leaves room for our 16 bytes only, and before a response there is nothing to SACK.
    """
    stamps = tcp_options.timestamps(segment.options)
    return option if stamps is None else option + tcp_options.encode_timestamps(*stamps)


def _ahead(option: bytes, wall: float) -> int:
    """How many epochs the option's four bits are ahead of ``wall``: the nearest, -8 to 7."""
    said = option[len(PREFIX) + 3] >> 4
    return (said - epoch_at(wall) + 8 & 15) - 8


def _mac(keys: Keys, kind: int, fields: bytes, binding: Binding, epoch: int) -> bytes:
    key = keys.handoff if kind < Kind.ACCEPTED else keys.answer
    data = _MAC_INPUT.pack(
        fields, epoch & 0xFFFFFFFF, binding.flow, binding.c, binding.b, binding.seq
    )
    if binding.bridge or binding.attempt:
        data += binding.bridge + bytes((binding.attempt,))
    return siphash24(key, data + binding.rest).to_bytes(8, "little")
