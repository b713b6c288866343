"""What an HTTP/2 request says, as far as the routes and keys of a service ask for it."""

from __future__ import annotations

from collections.abc import Collection

from balancer.core.request.asked import Asked
from balancer.core.request.fields import Values
from balancer.core.request.host import Authority, host_of
from balancer.core.request.http2.message import Message
from balancer.core.request.verdict import Bad, Reason

# RFC 9113 section 8.3.1: a Host that says the same in other words is none that differs; RFC 3986
# section 6.2.3: nor is one with a port that its scheme implies.
_IMPLIED = {b"http": b"80", b"https": b"443"}


class Reader:
    """Takes the header fields of certain lower-case names and, if ``host``, the host."""

    __slots__ = ("_host", "_names")

    def __init__(self, names: Collection[str], *, host: bool) -> None:
        self._names = frozenset(name.encode("ascii") for name in names)
        self._host = host

    def read(self, message: Message, source: bytes) -> Asked | Bad:
        """For a client with these 4 address bytes."""
        values = self._values(message)
        if isinstance(values, Bad):
            return values
        hosts = [value for name, value in message.fields if name == b"host"]
        if len(hosts) > 1 and (self._host or b"host" in self._names):
            return Bad(Reason.SEVERAL_HOSTS)
        if not self._host:
            return Asked(message.request, source, b"", values)
        authority = _host_of(message, hosts[0].strip(b" \t") if hosts else b"")
        if isinstance(authority, Bad):
            return authority
        return Asked(message.request, source, authority.host, values)

    def _values(self, message: Message) -> Values | Bad:
        """As the request would have them in HTTP/1."""
        values: Values = {}
        for name, value in message.fields:
            if name in self._names:
                # RFC 9113 section 8.2.1: none of these "at any position". White space around a
                # value is wrong, too, but no two readers make different things of it.
                if b"\0" in value or b"\r" in value or b"\n" in value:
                    return Bad(Reason.BAD_FIELD_VALUE)
                values.setdefault(name, []).append(value.strip(b" \t"))
        # Section 8.2.3: cookies that were split, to compress better, are joined again.
        if cookies := values.get(b"cookie"):
            values[b"cookie"] = [b"; ".join(cookies)]
        # Section 8.3.1: towards HTTP/1 a Host is made of :authority.
        if b"host" in self._names and message.authority:
            values[b"host"] = [message.authority]
        return values


def _host_of(message: Message, field: bytes) -> Authority | Bad:
    """Section 8.3.1: that of :authority, or where there is none, of a Host field of this value.
    They must not differ: one server would take the one and the next the other."""
    found = host_of(message.request, message.authority or field)
    if isinstance(found, Bad) or not (field and message.authority):
        return found
    named = host_of(message.request, field)
    if isinstance(named, Bad):
        return named
    same = _with_port(message, found) == _with_port(message, named)
    return found if same else Bad(Reason.HTTP2_HOST_DIFFERS)


def _with_port(message: Message, authority: Authority) -> Authority:
    return authority._replace(port=authority.port or _IMPLIED.get(message.scheme.lower(), b""))
