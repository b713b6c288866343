"""What both programs' configurations have in common: how they are watched and commanded."""

from dataclasses import dataclass
from typing import Annotated, Literal

from common.core import settings
from common.core.settings import ENDPOINT, Settings

BALANCER_PORT, BRIDGE_PORT = 9310, 9320  # of /health and /metrics, where none is configured

GROUP = settings.matching("a group's name", r"[a-z_][a-z0-9_-]{0,31}")
NO_OR_PATH = settings.matching("a path from the root, or '' for none", r"(/[^\0\n]*)?")


def _endpoints(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(item if isinstance(item, tuple) else ENDPOINT(item) for item in value)


ENDPOINTS = settings.Check("a list of ADDRESS:PORT, such as ['127.0.0.1:9310']", _endpoints)


@dataclass(frozen=True, slots=True)
class Control(Settings):
    """The Unix socket that commands come in by ('' for none), and who besides root and the
    program's own user may use it."""

    socket: Annotated[str, NO_OR_PATH] = ""
    group: Annotated[str | None, settings.optional(GROUP)] = None


@dataclass(frozen=True, slots=True)
class Http(Settings):
    """Where /health and /metrics are to be had by HTTP."""

    listen: Annotated[tuple[tuple[str, int], ...], ENDPOINTS] = ()


@dataclass(frozen=True, slots=True)
class AccessLog(Settings):
    """A line for each connection that is over, in ``file`` ('' for none)."""

    file: Annotated[str, NO_OR_PATH] = ""
    format: Literal["json", "text"] = "json"
