"""The host that a request is for.

Source: RFC 9112 section 3.2 (Host), RFC 3986 section 3.2 (the grammar).
"""

import re
from typing import Final, NamedTuple

from balancer.core.request.line import Request
from balancer.core.request.verdict import Bad, Reason

MAX_HOST: Final = 255
"""Bytes of a host with its port. RFC 3986 section 3.2.2: names in the DNS have no more, and URIs
should use such."""


class Authority(NamedTuple):
    """``host`` in lower case, without the dot of a name from the root, "" where none is named;
    ``port`` in digits, "" where there is none."""

    host: bytes
    port: bytes


# RFC 3986 section 3.2:  authority  = [ userinfo "@" ] host [ ":" port ]
# section 3.2.2:         host       = IP-literal / IPv4address / reg-name
#                        reg-name   = *( unreserved / pct-encoded / sub-delims )
# section 3.2.3:         port       = *DIGIT
# Of IP literals IPv6 addresses only, IPvFuture being future still. No userinfo: RFC 9110 section
# 7.2 has none in Host, section 4.2.4 has it treated as an error in a target.
_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]++\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::([0-9]*+))?"
)
_ABSOLUTE_FORM = re.compile(rb"[^:/?#]++://([^/?#]*+)")


def host_of(request: Request, field: bytes) -> Authority | Bad:
    """The host of a request whose Host field has this value, b"" if it has none."""
    target = request.target
    if target.startswith(b"/") or target == b"*":
        return _parse(field) if field else Authority(b"", b"")
    # RFC 9112 section 3.2.2: "the origin server MUST ignore the received Host header field (if any)
    # and instead use the host information of the request-target". Section 3.2.3: with CONNECT that
    # is all of it.
    absolute = _ABSOLUTE_FORM.match(target)
    return _parse(absolute[1] if absolute else target)


def _parse(text: bytes) -> Authority | Bad:
    found = _AUTHORITY.fullmatch(text) if len(text) <= MAX_HOST else None
    # RFC 9110 section 4.2.1: "A sender MUST NOT generate an "http" URI with an empty host
    # identifier. A recipient [...] MUST reject it as invalid."
    host = found[1].lower().removesuffix(b".") if found else b""
    if found is None or not host:
        return Bad(Reason.BAD_HOST)
    return Authority(host, found[2] or b"")
