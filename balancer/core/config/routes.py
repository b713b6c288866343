"""Routes: which requests go to which pool."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from balancer.core.request import path_regex
from common.core import settings
from common.core.settings import NAME, PORT, Settings

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")  # an IPv4 address is one, too
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_PROTOCOL = re.compile(r"[\x20-\x7e]{1,255}")  # RFC 7301 section 3.1: 1 to 255 bytes
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_FIELD_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")


def _several(pattern: re.Pattern[str], value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise TypeError
    if not all(isinstance(item, str) and pattern.fullmatch(item) for item in items):
        raise ValueError
    return tuple(items)


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(host.lower() for host in _several(_HOST, value))


def _methods(value: Any) -> tuple[str, ...]:
    return _several(_METHOD, value)


def _regex(value: Any) -> str:
    """Kept as text, so that a route can be compared and shown."""
    if not isinstance(value, str):
        raise TypeError
    path_regex.check(value)
    return value


def _fields(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = value.items() if isinstance(value, dict) else value
    if not all(
        _FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(text) for name, text in pairs
    ):
        raise ValueError
    return tuple((name.lower(), text) for name, text in pairs)


HOSTS = settings.Check("a host's name, '*.example.com', or a list of them", _hosts)
METHODS = settings.Check("a method, such as 'GET', or a list of them", _methods)
REGEX = settings.Check(
    "a regular expression (RE2, ASCII, not too large) for the beginning of a path", _regex
)
PROTOCOLS = settings.Check(
    "a protocol's name in ALPN, such as 'h2', or a list of them",
    lambda value: _several(_PROTOCOL, value),
)
FIELDS = settings.Check("a table of names and values, a value of '*' meaning any", _fields)


@dataclass(frozen=True, slots=True)
class Route(Settings):
    """Requests that meet all that is said here go to ``pool``. What is left out, any meets.

    Of TLS, ``host`` is the server's name (SNI), and ``alpn`` protocols of which the client offers
    one. The other criteria, but for service and port, are HTTP's: a route that asks for what a
    service does not read is none of that service's.

    ``port`` is the service's; ``path_regex`` matches from the path's beginning on; a host in
    ``host`` is compared without port and in lower case.
    """

    pool: Annotated[str, NAME]
    name: Annotated[
        str, settings.matching("a name of at most 64 printable characters", "[ -~]{0,64}")
    ] = ""
    service: Annotated[str | None, settings.optional(NAME)] = None
    port: Annotated[int | None, settings.optional(PORT)] = None
    host: Annotated[tuple[str, ...], HOSTS] = ()
    path_prefix: Annotated[
        str | None,
        settings.optional(
            settings.matching(
                "the beginning of a path, such as '/images/'", r"/[\x21-\x3e\x40-\x7e]*"
            )
        ),
    ] = None
    path_regex: Annotated[str | None, settings.optional(REGEX)] = None
    method: Annotated[tuple[str, ...], METHODS] = ()
    header: Annotated[tuple[tuple[str, str], ...], FIELDS] = ()
    alpn: Annotated[tuple[str, ...], PROTOCOLS] = ()

    def unreadable(self, inspect: str) -> tuple[str, ...]:
        """What is asked for here and not to be had by that kind of inspection."""
        of_http = ("path_prefix", "path_regex", "method", "header")
        lacking = {"http": ("alpn",), "tls": of_http, "none": ("host", "alpn", *of_http)}
        return tuple(name for name in lacking[inspect] if getattr(self, name) not in (None, ()))

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.path_prefix is not None and self.path_regex is not None:
            yield "path_regex", "and path_prefix are both there; right would be one of them"
