"""What a request says, as far as the routes and keys of a service ask for it."""

from collections.abc import Collection
from typing import NamedTuple

from balancer.core.request import fields
from balancer.core.request.fields import Finder, Values
from balancer.core.request.host import host_of
from balancer.core.request.line import Request
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason

HOST = "host"
COOKIE = "cookie"


class Asked(NamedTuple):
    """``host`` as in Authority, and only if it is asked for; ``source`` are the client's 4 address
    bytes; ``fields`` have the names that are asked for. Of TLS, ``host`` is the server's name, and
    ``protocols`` are those that the client offers."""

    request: Request
    source: bytes
    host: bytes
    fields: Values
    protocols: tuple[bytes, ...] = ()


class Reader:
    """Reads the header fields of certain lower-case names and, if ``host``, the host."""

    __slots__ = ("_finder", "_host")

    def __init__(self, names: Collection[str], *, host: bool) -> None:
        self._finder = Finder({*names, HOST} if host else names)
        self._host = host

    def read(
        self, request: Request, data: bytes, limit: int, source: bytes
    ) -> Asked | NeedMore | Bad:
        """Of ``data``, which begin with the request line. The head must end within ``limit``."""
        end = fields.end_of_head(data, request.end, limit)
        if end is None:
            return NEED_MORE if len(data) < limit else Bad(Reason.HEAD_TOO_LONG)
        values = self._finder.find(data, request.end, end)
        if isinstance(values, Bad):
            return values
        # RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any
        # HTTP/1.1 request message that lacks a Host header field and to any request message that
        # contains more than one". That there is one is for the backend to ask.
        hosts = values.get(b"host", [])
        if len(hosts) > 1:
            return Bad(Reason.SEVERAL_HOSTS)
        if not self._host:
            return Asked(request, source, b"", values)
        authority = host_of(request, hosts[0] if hosts else b"")
        if isinstance(authority, Bad):
            return authority
        return Asked(request, source, authority.host, values)
