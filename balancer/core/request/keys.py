"""The key of a request in a pool: what the pool's policy chooses a backend by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from balancer.core.request.asked import COOKIE, HOST, Asked
from balancer.core.request.fields import joined
from balancer.core.request.named import Cookie, Parameter, query_of

if TYPE_CHECKING:
    from balancer.core.config import Pool

Taken = Callable[[Asked], bytes]  # a part's value, b"" where there is none

_NEVER_MISSING = frozenset({"path", "uri", "source"})
SHOWN = 256  # characters of a value in words


class Keyed(NamedTuple):
    """A key, the parts that it is made of, and those that were missing, as they are configured."""

    key: bytes
    parts: tuple[str, ...]
    missing: tuple[str, ...]


class Key:
    """How a pool has its requests' keys made: of ``Pool.key``, or of what is ``natural`` where it
    says nothing. Where a part is missing or empty,
    ``Pool.missing`` is taken in place of the whole; and where that lacks one, too, the client's
    address. ``names`` are the header fields needed for it, and ``needs_host`` says whether the
    host is, wherever it stands."""

    __slots__ = ("_instead", "_takes", "instead", "names", "needs_host", "parts")

    def __init__(self, pool: Pool, natural: tuple[str, ...] = ("path",)) -> None:
        self.parts, self.instead = pool.key or natural, pool.missing
        self._takes = [_taken(part) for part in self.parts]
        self._instead = [_taken(part) for part in self.instead]
        certain = _NEVER_MISSING.issuperset(self.parts)
        used = self.parts if certain else (*self.parts, *self.instead)
        self.names = frozenset(_field(part) for part in used) - {""}
        self.needs_host = HOST in used

    def of(self, asked: Asked) -> Keyed:
        values = [take(asked) for take in self._takes]
        if all(values):
            return Keyed(_bound(values), self.parts, ())
        missing = _without(self.parts, values)
        values = [take(asked) for take in self._instead]
        if all(values):
            return Keyed(_bound(values), self.instead, missing)
        missing += _without(self.instead, values)
        return Keyed(asked.source, ("source",), missing)


def shown(key: bytes, parts: Sequence[str]) -> str:
    """A key that was made of these parts, in words: `host=example.com cookie:user=7`. Printable
    ASCII, and bounded."""
    return " ".join(
        f"{part}={_printable(part, value)}"
        for part, value in zip(parts, _unbound(key, len(parts)), strict=True)
    )


def _taken(part: str) -> Taken:
    kind, _, name = part.partition(":")
    return _KINDS[kind](name)


def _field(part: str) -> str:
    """The header field that a part is taken from, "" for none."""
    kind, _, name = part.partition(":")
    if kind == "header":
        return name.lower()
    return {"host": HOST, "cookie": COOKIE}.get(kind, "")


def _uri(asked: Asked) -> bytes:
    """The path with its query: alike whether or not the target names the host, too."""
    _, target, path, _ = asked.request
    mark = b"?" if b"?" in target.partition(b"#")[0] else b""
    return path if path == target else path + mark + query_of(target)


def _parameter(name: str) -> Taken:
    parameter = Parameter(name)
    return lambda asked: parameter.value(asked.request.target)


def _header(name: str) -> Taken:
    lower = name.lower().encode("ascii")
    return lambda asked: joined(asked.fields.get(lower, []))


def _cookie(name: str) -> Taken:
    cookie = Cookie(name)
    return lambda asked: cookie.value(asked.fields.get(b"cookie", []))


_KINDS: dict[str, Callable[[str], Taken]] = {
    "path": lambda _: lambda asked: asked.request.path,
    "uri": lambda _: _uri,
    "host": lambda _: lambda asked: asked.host,
    "source": lambda _: lambda asked: asked.source,
    "sni": lambda _: lambda asked: asked.host,
    "alpn": lambda _: lambda asked: b",".join(asked.protocols),
    "query": _parameter,
    "header": _header,
    "cookie": _cookie,
}


def _bound(values: list[bytes]) -> bytes:
    """One value as it is. Several as netstrings (D. J. Bernstein, 1997) behind a NUL, with which no
    value begins but an address, so that other values make another key."""
    if len(values) == 1:
        return values[0]
    return b"\0" + b"".join(b"%d:%b," % (len(value), value) for value in values)


def _unbound(key: bytes, count: int) -> list[bytes]:
    if count == 1:
        return [key]
    values, at = [], 1
    for _ in range(count):
        colon = key.index(b":", at)
        end = colon + 1 + int(key[at:colon])
        values.append(key[colon + 1 : end])
        at = end + 1
    return values


def _without(parts: tuple[str, ...], values: list[bytes]) -> tuple[str, ...]:
    return tuple(part for part, value in zip(parts, values, strict=True) if not value)


def _printable(part: str, value: bytes) -> str:
    if part == "source":
        return str(IPv4Address(value))
    text = ascii(value.decode("latin-1"))[1:-1]
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
