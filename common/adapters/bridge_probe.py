"""Whether what is sent to a bridge arrives as it was sent: asked of the bridge, and of its host.

A question in a handoff's form (common.core.clock_exchange) is answered by a bridge that runs. Where
none answers, a datagram to a port where nobody listens still tells a DSCP that is changed on the
way from a bridge that is not there: the host's ICMP error quotes the header as it arrived (RFC 1122
section 3.2.2), whatever runs there. What is listened to is what the interfaces receive, before any
rule of this host's, and beside a balancer that runs.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from common.adapters.raw_socket import RawSockets
from common.adapters.readable import readable
from common.core import icmp
from common.core.clock_exchange import Question
from common.core.errors import MalformedError
from common.core.keys import Keys

ROUNDS, WAIT = 2, 0.2  # a packet may be lost; seconds that each round waits for answers
NOBODY_LISTENS = 33434  # traceroute's first port; each target has the next one

_ETH_P_IP, _ATTACH_FILTER, _FREEBIND, _UDP = 0x0800, 26, 15, 17  # from Linux' headers
# Classic BPF: ICMP, and TCP with RST and ACK (flags 0x14) whose header is of 36 bytes (0x90).
_FILTER = (
    (0x30, 0, 0, 9),  # load the protocol
    (0x15, 3, 0, 1),  # ICMP: keep
    (0x15, 0, 3, 6),  # not TCP: leave
    (0x28, 0, 0, 32),  # load data offset and flags
    (0x15, 0, 1, 0x9014),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A service at one of its bridges. One of ``udp`` is not asked: nobody listens there to a
    question in a handoff's form."""

    vip: str
    port: int
    dscp: int
    bridge: str
    udp: bool = False


@dataclass(slots=True)
class Heard:
    """Of one target: by how many seconds the clock of the bridge that answered is ``ahead``; else
    the ``dscp`` that a datagram arrived with; and the error with which this host ``refused`` to
    send. None: not heard."""

    ahead: float | None = None
    dscp: int | None = None
    refused: OSError | None = None


def ask(targets: Sequence[Target], keys: Keys) -> list[Heard]:
    """What is heard of each target. Needs CAP_NET_RAW."""
    heard = [Heard() for _ in targets]
    with ExitStack() as stack:
        listener = stack.enter_context(_listener())
        raw = stack.enter_context(closing(RawSockets()))
        questions = [_question(target, stack) for target in targets]
        for _ in range(ROUNDS):
            sent = time.time()
            for question, each in zip(questions, heard, strict=True):
                if question is not None and each.ahead is None:
                    each.refused = _sent(raw.send, 0, question.packet(keys, time.time()))
            if _answers(listener, questions, heard, keys, sent):
                break
        for _ in range(ROUNDS):
            for number, (target, each) in enumerate(zip(targets, heard, strict=True)):
                if each.ahead is None and each.dscp is None:
                    _sent(_datagram, target, number)
            if _quotations(listener, targets, heard):
                break
    return heard


def _question(target: Target, stack: ExitStack) -> Question | None:
    """Its source port is kept from other connections of this host's until ``stack`` ends."""
    if target.udp:
        return None
    kept = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    kept.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)  # a VIP may be routed here, and held by none
    kept.bind((target.vip, 0))
    vip, bridge = (IPv4Address(address).packed for address in (target.vip, target.bridge))
    return Question(vip, kept.getsockname()[1], bridge, target.port, target.dscp)


def _datagram(target: Target, number: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, target.dscp << 2)
        out.sendto(b"", (target.bridge, NOBODY_LISTENS + number))


def _sent(send: Callable[..., None], *arguments: object) -> OSError | None:
    """Why this host did not send, None if it did."""
    try:
        send(*arguments)
    except OSError as error:
        return error
    return None


def _answers(
    listener: socket.socket,
    questions: Sequence[Question | None],
    heard: Sequence[Heard],
    keys: Keys,
    sent: float,
) -> bool:
    """Note answers, for a while; whether each question has one then."""

    def answered() -> bool:
        asked = zip(questions, heard, strict=True)
        return all(question is None or each.ahead is not None for question, each in asked)

    for packet in _received(listener, answered):
        middle = (sent + time.time()) / 2
        for question, each in zip(questions, heard, strict=True):
            if question is None:
                continue
            try:
                ahead = question.ahead(keys, packet, middle)
            except MalformedError:
                break
            each.ahead = ahead if each.ahead is None else each.ahead
    return answered()


def _quotations(listener: socket.socket, targets: Sequence[Target], heard: Sequence[Heard]) -> bool:
    """Note with which DSCP datagrams arrived, for a while; whether all is known then."""

    def known() -> bool:
        return all(each.ahead is not None or each.dscp is not None for each in heard)

    for packet in _received(listener, known):
        try:
            inner, udp = icmp.quotation(packet)
        except MalformedError:
            continue
        number = int.from_bytes(packet[udp + 2 : udp + 4], "big") - NOBODY_LISTENS
        if packet[inner + 9] == _UDP and 0 <= number < len(targets):
            bridge = IPv4Address(targets[number].bridge).packed
            if packet[inner + 16 : inner + 20] == bridge == packet[12:16]:
                heard[number].dscp = packet[inner + 1] >> 2
    return known()


def _received(listener: socket.socket, enough: Callable[[], bool]) -> Iterator[bytes]:
    """Packets of the next WAIT seconds, as long as it is not enough."""
    deadline = time.monotonic() + WAIT
    while not enough():
        left = deadline - time.monotonic()
        if left <= 0 or not readable(listener, left):
            return
        yield listener.recv(65535)


@contextmanager
def _listener() -> Iterator[socket.socket]:
    """A socket that gets what comes in and passes _FILTER, from its IP header on."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _FILTER)
    room = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_FILTER), ctypes.addressof(room))
    ipv4 = socket.htons(_ETH_P_IP)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, ipv4) as listener:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        yield listener
