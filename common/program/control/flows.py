"""What the programs' `flows` have in common: which flows are asked for, and how they are named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

from common.adapters.control.server import Command, CommandError, Pages
from common.program.control.pages import paged
from common.program.control.table import command

T = TypeVar("T")
F = TypeVar("F")

MOST = 1 << 26  # rows: of [limits] flows

_ID = re.compile(r"[0-9a-f]{16}")
_CLIENT = re.compile(r"([0-9.]{7,15})(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Client:
    """A client's address, and its port, 0 for any."""

    address: bytes  # 4
    port: int = 0

    def is_of(self, key: bytes) -> bool:
        """Whether a client's packets of that 12-byte key are its; one with port 0 stands for those
        of all its ports."""
        if key[:4] != self.address:
            return False
        return not self.port or int.from_bytes(key[8:10], "big") in (0, self.port)

    def __str__(self) -> str:
        text = str(IPv4Address(self.address))
        return f"{text}:{self.port}" if self.port else text


class Flows(Protocol[F]):
    """What is a program's own of its flows."""

    def those(self, wanted: Callable[[F], bool]) -> Iterator[F | None]:
        """Those that are wanted; None for each of the others."""

    def key(self, flow: F) -> bytes:
        """Of the client's packets, 12 bytes; the first 4 are its address, the ninth and tenth its
        port."""

    def identity(self, flow: F) -> str:
        """Its id."""

    def other_side(self, key: bytes) -> bytes | None:
        """The client's key for a packet's that has other addresses, but is of a known flow."""

    def withhold(self, wanted: Callable[[F], bool] | None) -> None:
        """See FastPath."""

    def renew(self, flow: F) -> None:
        """See FastPath."""


def those(
    every: Iterable[F], is_gone: Callable[[F], bool], wanted: Callable[[F], bool]
) -> Iterator[F | None]:
    """Every flow that is wanted, once and as it is when its turn comes; None for each of the
    others, as they take their time, too."""
    known: set[int] = set()
    for flow in every:
        wants = not is_gone(flow) and id(flow) not in known and wanted(flow)
        known.add(id(flow))
        yield flow if wants else None


def killing(flows: Flows[F], end: Callable[[F, float], None]) -> Command:
    """The command `kill`, which ends the flows of a name by ``end``, given the time."""

    def kill(flow: str) -> Pages:
        name = which(flow)
        killed = []
        for page in paged(flows.those(lambda each: _is_named(flows, each, name))):
            for each in page:
                end(each, time.monotonic())
                killed.append(flows.identity(each))
            yield []
        if not killed:
            raise CommandError(f"there is no flow {flow}")
        return {"killed": killed}

    return command(kill)


def _is_named(flows: Flows[F], flow: F, name: str | Client) -> bool:
    if isinstance(name, Client):
        return name.is_of(flows.key(flow))
    return flows.identity(flow) == name


def check_state(state: str | None, states: Collection[str]) -> None:
    """Raise CommandError for one that there is none of."""
    if state is not None and state not in states:
        raise CommandError(f"state: {state!r} is wrong; right would be one of {', '.join(states)}")


def check_protocol(protocol: str | None) -> None:
    """Raise CommandError for one that there are no flows of; None is any."""
    if protocol not in (None, "tcp", "udp"):
        raise CommandError(f"protocol: {protocol!r} is wrong; right would be tcp or udp")


def client(text: str, name: str = "client") -> Client:
    """ADDRESS or ADDRESS:PORT; raises CommandError, which has the argument's ``name``."""
    found = _CLIENT.fullmatch(text)
    try:
        if found is None or int(found[2] or 0) > 65535:
            raise ValueError
        return Client(IPv4Address(found[1]).packed, int(found[2] or 0))
    except ValueError:
        right = "right would be ADDRESS or ADDRESS:PORT, such as 192.168.33.1:40000"
        raise CommandError(f"{name}: {text!r} is wrong; {right}") from None


def which(text: str) -> str | Client:
    """A flow's id, or a client with its port; raises CommandError."""
    if _ID.fullmatch(text):
        return text
    try:
        found = client(text)
    except CommandError:
        found = None
    if found is None or not found.port:
        right = "right would be a flow's id (16 digits) or the client's ADDRESS:PORT"
        raise CommandError(f"{text!r} names no flow; {right}")
    return found


def first(rows: Iterator[T | None], limit: int) -> Iterator[T | None]:
    """As many rows that are not None; raises CommandError for a limit that is none."""
    if limit < 1:
        raise CommandError(f"limit: {limit} is wrong; right would be 1 or more")
    return _first(rows, limit)


def _first(rows: Iterator[T | None], left: int) -> Iterator[T | None]:
    for row in rows:
        yield row
        left -= row is not None
        if not left:
            return


def at(address: bytes, port: bytes | int) -> str:
    """ADDRESS:PORT of 4 bytes and a number, or 2 more of them."""
    number = port if isinstance(port, int) else int.from_bytes(port, "big")
    return f"{address[0]}.{address[1]}.{address[2]}.{address[3]}:{number}"
