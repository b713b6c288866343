"""Services: what clients connect to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from balancer.core.config.pools import Backend
from common.core import settings
from common.core.settings import IPV4, NAME, PORT, Settings, whole


@dataclass(frozen=True, slots=True)
class Service(Settings):
    """A VIP and port, and who serves what no route sends elsewhere: a ``pool`` by its name, or
    ``backends`` of the service's own, which make a pool of the service's name.

    ``max_head`` bounds a request's head; ``window_scale``, ``sack`` and ``timestamps`` are the TCP
    options promised to clients that offer them (RFC 7323, RFC 2018). Durations in seconds; None:
    those of [timeouts].
    """

    name: Annotated[str, NAME]
    vip: Annotated[str, IPV4]
    port: Annotated[int, PORT]
    dscp: Annotated[int, whole(1, 63)]
    pool: Annotated[str | None, settings.optional(NAME)] = None
    backends: tuple[Backend, ...] = ()
    protocol: Literal["tcp"] = "tcp"
    inspect: Literal["http"] = "http"
    bad_request: Literal["reset", "source-hash"] = "reset"
    max_head: Annotated[int, whole(1024, 65535)] = 16384
    window_scale: Annotated[int, whole(0, 14)] = 7
    sack: Annotated[bool, settings.YES_NO] = True
    timestamps: Annotated[bool, settings.YES_NO] = True
    request_timeout: Annotated[float | None, settings.optional(settings.seconds(1, 86400))] = None
    idle_timeout: Annotated[float | None, settings.optional(settings.seconds(1, 604800))] = None

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        return {"name": f"{table.get('vip', '?')}:{table.get('port', '?')}"}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.pool is not None and self.backends:
            yield "backends", "and pool are both there; right would be one of them"
        for key in ("name", "bridge"):
            yield from settings.repeated("backends", self.backends, key)

    @property
    def default_pool(self) -> str | None:
        """The pool of what no route sends elsewhere; None: such requests are bad ones."""
        return self.name if self.backends else self.pool
