"""How a server is checked: the settings of `[backends.check]`."""

import re
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


@dataclass(frozen=True, slots=True)
class Check(Settings):
    """Every ``interval`` seconds, give or take ``jitter`` of it: connect to the server, and for
    http ask for ``path`` of ``host``: the status must be in one of the ranges (first, last), and
    ``body``, if any, in the answer. It takes at most ``timeout`` seconds. ``fall`` bad ones in a
    row take a server out, ``rise`` good ones bring it back."""

    kind: Literal["tcp", "http"] = "tcp"
    path: Annotated[str, TARGET] = "/"
    host: Annotated[str, HOST] = ""
    status: Annotated[tuple[tuple[int, int], ...], STATUSES] = ((200, 399),)
    body: Annotated[str, TEXT] = ""
    interval: Annotated[float, seconds(0.05, 3600)] = 2.0
    timeout: Annotated[float, seconds(0.05, 60)] = 1.0
    jitter: Annotated[float, settings.number(0, 1)] = 0.1
    rise: Annotated[int, whole(1, 100)] = 2
    fall: Annotated[int, whole(1, 100)] = 3
