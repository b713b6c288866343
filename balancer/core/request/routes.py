"""The routes of a service, filed so that a request is compared with few of them.

The first that a request meets, in their order, is its route. Those with a regular expression are
looked for all at once; the others are found by host, beginning of the path and a header field: a
look-up for each length that a prefix has, however many routes there are.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from balancer.core.request.asked import Asked
from balancer.core.request.fields import joined
from balancer.core.request.path_regex import PathRegexes

if TYPE_CHECKING:
    from balancer.core.config import Route

Pair = tuple[bytes, bytes]  # a header field's name in lower case, and its value

_LONGEST_NAME = 64


class Compiled:
    """One route. ``name`` is its own, or what it asks for in words."""

    __slots__ = ("_headers", "_hosts", "_methods", "_protocols", "_suffixes", "name", "pool")

    def __init__(self, route: Route) -> None:
        self.name = route.name or _in_words(route)
        self.pool = route.pool
        hosts = [host.encode("ascii") for host in route.host]
        self._hosts = frozenset(host for host in hosts if not host.startswith(b"*"))
        self._suffixes = tuple(host[1:] for host in hosts if host.startswith(b"*"))
        self._methods = frozenset(method.encode("ascii") for method in route.method)
        self._protocols = frozenset(protocol.encode("ascii") for protocol in route.alpn)
        self._headers = [
            (name.encode("ascii"), None if value == "*" else value.encode("ascii"))
            for name, value in route.header
        ]

    def meets_host(self, host: bytes) -> bool:
        if not self._hosts and not self._suffixes:
            return True
        return host in self._hosts or host.endswith(self._suffixes)

    def meets_rest(self, asked: Asked) -> bool:
        """Whether the method (RFC 9110 section 9.1: case-sensitive), the fields and the protocols
        are right."""
        if self._methods and asked.request.method not in self._methods:
            return False
        if self._protocols and self._protocols.isdisjoint(asked.protocols):
            return False
        return all(_has(asked.fields, name, value) for name, value in self._headers)

    @property
    def pair(self) -> Pair | None:
        """A field that a request must have with a certain value, if there is one."""
        exact = ((name, value) for name, value in self._headers if value is not None)
        return next(exact, None)


class Filed:
    """Routes of one host by the beginning of the path and a header field, as indices in ascending
    order."""

    __slots__ = ("_indices", "_lengths")

    def __init__(self) -> None:
        self._indices: dict[tuple[bytes, Pair | None], list[int]] = {}
        self._lengths: list[int] = []

    def add(self, prefix: bytes, pair: Pair | None, index: int) -> None:
        self._indices.setdefault((prefix, pair), []).append(index)
        if len(prefix) not in self._lengths:
            insort(self._lengths, len(prefix))

    def find(self, path: bytes, pairs: Sequence[Pair | None]) -> Iterator[int]:
        for length in self._lengths:
            if length > len(path):
                return
            for pair in pairs:
                yield from self._indices.get((path[:length], pair), ())


class Routes:
    """A service's routes in their order."""

    __slots__ = ("_anywhere", "_by_host", "_by_suffix", "_compiled", "_regexes", "_with_regex")

    def __init__(self, routes: Sequence[Route]) -> None:
        self._compiled = [Compiled(route) for route in routes]
        self._by_host: dict[bytes, Filed] = {}
        self._by_suffix: dict[bytes, Filed] = {}  # from the dot on
        self._anywhere = Filed()
        self._with_regex = [i for i, route in enumerate(routes) if route.path_regex is not None]
        self._regexes = PathRegexes([str(routes[i].path_regex) for i in self._with_regex])
        for index, route in enumerate(routes):
            if route.path_regex is None:
                prefix = (route.path_prefix or "").encode("ascii")
                for filed in self._places(route):
                    filed.add(prefix, self._compiled[index].pair, index)

    def find(self, asked: Asked) -> Compiled | None:
        path, host = asked.request.path, asked.host
        pairs = (None, *((name, joined(values)) for name, values in asked.fields.items()))
        indices = list(self._anywhere.find(path, pairs))
        if host and (self._by_host or self._by_suffix):
            for filed in self._of_host(host):
                indices += filed.find(path, pairs)
        for which in self._regexes.matching(path):
            index = self._with_regex[which]
            if self._compiled[index].meets_host(host):
                indices.append(index)
        for index in sorted(indices):
            if self._compiled[index].meets_rest(asked):
                return self._compiled[index]
        return None

    def _places(self, route: Route) -> Iterator[Filed]:
        if not route.host:
            yield self._anywhere
        for name in route.host:
            host = name.encode("ascii")
            if host.startswith(b"*"):
                yield self._by_suffix.setdefault(host[1:], Filed())
            else:
                yield self._by_host.setdefault(host, Filed())

    def _of_host(self, host: bytes) -> Iterator[Filed]:
        if host in self._by_host:
            yield self._by_host[host]
        dot = host.find(b".") if self._by_suffix else -1
        while dot >= 0:
            suffix = host[dot:]
            if suffix in self._by_suffix:
                yield self._by_suffix[suffix]
            dot = host.find(b".", dot + 1)


def _has(fields: Mapping[bytes, list[bytes]], name: bytes, value: bytes | None) -> bool:
    """Whether there is such a field, with this value if there is one."""
    values = fields.get(name)
    return values is not None and (value is None or joined(values) == value)


def _in_words(route: Route) -> str:
    """As `GET *.example.com/images/ x-cache=*`; not empty, and not long."""
    where = ",".join(route.host) + (route.path_prefix or "")
    regex = f"~{route.path_regex}" if route.path_regex is not None else ""
    headers = (f"{name}={value}" for name, value in route.header)
    alpn = "alpn=" * bool(route.alpn) + ",".join(route.alpn)
    words = [",".join(route.method), where + regex, *headers, alpn]
    text = " ".join(word for word in words if word) or "any"
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 3] + "..."
