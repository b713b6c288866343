"""Services: what clients connect to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from balancer.core.config.pools import Backend
from common.core import settings
from common.core.settings import IPV4, NAME, PORT, Settings, whole

# What a key can be made of, by what is inspected.
READABLE = {
    "http": ("path", "uri", "host", "source", "query", "header", "cookie"),
    "tls": ("sni", "alpn", "source"),
    "none": ("source", "source-port"),
}


# What is for connections whose handshake is the balancer's.
OF_READING = ("max_head", "window_scale", "sack", "timestamps", "request_timeout")


def implied_name(vip: object, port: object, *, udp: bool) -> str:
    """The name of a service that says none."""
    return f"{vip}:{port}/udp" if udp else f"{vip}:{port}"


@dataclass(frozen=True, slots=True)
class Service(Settings):
    """A VIP and port, and who serves what no route sends elsewhere: a ``pool`` by its name, or
    ``backends`` of the service's own, which make a pool of the service's name.

    ``inspect`` is what is read before a backend is chosen: the head of the first request, the
    ClientHello of TLS, or nothing but addresses and ports, as always with UDP.

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
    protocol: Literal["tcp", "udp"] = "tcp"
    inspect: Literal["http", "tls", "none"] = "http"
    bad_request: Literal["reset", "source-hash"] = "reset"
    max_head: Annotated[int, whole(1024, 65535)] = 16384
    window_scale: Annotated[int, whole(0, 14)] = 7
    sack: Annotated[bool, settings.YES_NO] = True
    timestamps: Annotated[bool, settings.YES_NO] = True
    request_timeout: Annotated[float | None, settings.optional(settings.seconds(1, 86400))] = None
    idle_timeout: Annotated[float | None, settings.optional(settings.seconds(1, 604800))] = None

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        udp = table.get("protocol") == "udp"
        name = implied_name(table.get("vip", "?"), table.get("port", "?"), udp=udp)
        return {"name": name, "inspect": "none"} if udp else {"name": name}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.protocol == "udp" and self.inspect != "none":
            yield "inspect", f"'{self.inspect}' is wrong with protocol 'udp'; right would be 'none'"
        if self.inspect == "none" and self.bad_request == "source-hash":
            what = "'source-hash' is wrong where no request is read"
            yield "bad_request", f"{what}; right would be key = 'source' in the pool"
        for key in OF_READING if self.inspect == "none" else ():
            if getattr(self, key) != self.__dataclass_fields__[key].default:
                yield key, "is for services of which something is read; right would be none"
        if self.pool is not None and self.backends:
            yield "backends", "and pool are both there; right would be one of them"
        for key in ("name", "bridge"):
            yield from settings.repeated("backends", self.backends, key)

    @property
    def natural_key(self) -> tuple[str, ...]:
        """The key of pools that say none."""
        return {"http": ("path",), "tls": ("sni",), "none": ("source",)}[self.inspect]

    @property
    def readable(self) -> tuple[str, ...]:
        """The kinds of keys that can be had (see Pool.key), without their NAME."""
        return READABLE[self.inspect]

    def unreadable(self, key: tuple[str, ...]) -> tuple[str, ...]:
        """The parts of a pool's key that cannot be had."""
        return tuple(part for part in key if part.partition(":")[0] not in self.readable)

    @property
    def default_pool(self) -> str | None:
        """The pool of what no route sends elsewhere; None: such requests are bad ones."""
        return self.name if self.backends else self.pool
