"""What the programs' `flows` have in common: which flows are asked for, and how they are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from common.adapters.control.server import CommandError

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{16}")
_CLIENT = re.compile(r"([0-9.]{7,15})(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Client:
    """A client's address, and its port, 0 for any."""

    address: bytes  # 4
    port: int = 0

    def is_of(self, key: bytes) -> bool:
        """Whether a client's packets of that 12-byte key are its."""
        if key[:4] != self.address:
            return False
        return not self.port or int.from_bytes(key[8:10], "big") == self.port

    def __str__(self) -> str:
        text = str(IPv4Address(self.address))
        return f"{text}:{self.port}" if self.port else text


def client(text: str) -> Client:
    """ADDRESS or ADDRESS:PORT; raises CommandError."""
    found = _CLIENT.fullmatch(text)
    try:
        if found is None or int(found[2] or 0) > 65535:
            raise ValueError
        return Client(IPv4Address(found[1]).packed, int(found[2] or 0))
    except ValueError:
        right = "right would be ADDRESS or ADDRESS:PORT, such as 192.168.33.1:40000"
        raise CommandError(f"client: {text!r} is wrong; {right}") from None


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
