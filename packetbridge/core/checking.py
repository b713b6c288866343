"""How a server is checked: the settings of `[backends.check]`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from common.core import settings
from common.core.settings import Settings, seconds, whole

STATUS = whole(100, 599)


def _statuses(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(_range(item) for item in value)


def _range(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", value)
        if found is None:
            raise ValueError
        value = int(found[1]), int(found[2] or found[1])
    low, high = map(STATUS, value)
    if low > high:
        raise ValueError
    return low, high


STATUSES = settings.Check(
    "a list of statuses or ranges of them, such as ['200', '300-399']", _statuses
)
TARGET = settings.matching("a path from the root, such as '/health'", r"/[!-~]*")
HOST = settings.matching("a host's name, or '' for the server's address", r"[!-~]{0,255}")
TEXT = settings.matching("a text of at most 1024 characters, or '' for any", r"(?s).{0,1024}")
MOST_SENT = 1472  # bytes: one packet of Ethernet


def _datagram(value: Any) -> bytes:
    """Text as UTF-8, or "hex:" and pairs of hexadecimal digits, with spaces as one likes."""
    if not isinstance(value, str):
        raise TypeError
    found = bytes.fromhex(value[4:]) if value.startswith("hex:") else value.encode()
    if len(found) > MOST_SENT:
        raise ValueError
    return found


def _expression(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise ValueError
    try:
        re.compile(value.encode("latin-1"), re.DOTALL)
    except (re.error, RecursionError):
        raise ValueError from None
    return value


DATAGRAM = settings.Check(
    f"a text, or 'hex:' and hexadecimal digits, of at most {MOST_SENT} bytes",
    lambda value: value if isinstance(value, bytes) else _datagram(value),
)
EXPRESSION = settings.Check("a regular expression for bytes, such as '^PONG'", _expression)


@dataclass(frozen=True, slots=True)
class Check(Settings):
    """Every ``interval`` seconds, give or take ``jitter`` of it: connect to the server, and for
    http ask for ``path`` of ``host``: the status must be in one of the ranges (first, last), and
    ``body``, if any, in the answer. For udp, send ``send``; the answer must begin with
    ``expect``, and ``match`` must be found in it. It takes at most ``timeout`` seconds. ``fall``
    bad ones in a row take a server out, ``rise`` good ones bring it back."""

    kind: Literal["tcp", "http", "udp"] = "tcp"
    path: Annotated[str, TARGET] = "/"
    host: Annotated[str, HOST] = ""
    status: Annotated[tuple[tuple[int, int], ...], STATUSES] = ((200, 399),)
    body: Annotated[str, TEXT] = ""
    interval: Annotated[float, seconds(0.05, 3600)] = 2.0
    timeout: Annotated[float, seconds(0.05, 60)] = 1.0
    jitter: Annotated[float, settings.number(0, 1)] = 0.1
    rise: Annotated[int, whole(1, 100)] = 2
    fall: Annotated[int, whole(1, 100)] = 3
    send: Annotated[bytes, DATAGRAM] = b""
    expect: Annotated[bytes, DATAGRAM] = b""
    match: Annotated[str, EXPRESSION] = ""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.kind == "udp" and not self.send:
            yield "send", "is missing; right would be a datagram that the server answers"
        if self.kind != "udp":
            for key in ("send", "expect", "match"):
                if getattr(self, key):
                    what = f"is for kind 'udp', not '{self.kind}'"
                    yield key, f"{what}; right would be kind = 'udp', or no {key}"
