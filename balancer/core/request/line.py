"""Reads the request line of an HTTP/1.x request from the first bytes of a connection.

Source: RFC 9112, sections 2.2 and 3. No header is needed for the path, so the answer is known as
soon as the request line is complete, or as soon as it cannot become one. It is final: more bytes
never change it.

This chooses a backend; it does not guard one. What the grammar leaves open is passed on for the
backend to judge (which method may have which form of target, say), and a path is a key that is
hashed as it stands: nothing is decoded, `/a/../b` is not `/b`.
"""

import re
from typing import Final, NamedTuple

from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason

MAX_METHOD: Final = 32
"""Bytes; the longest registered method has 17 (UPDATEREDIRECTREF)."""

MAX_EMPTY_LINES: Final = 8
"""Empty lines skipped before the request line; RFC 9112 section 2.2 asks for at least one."""


class Request(NamedTuple):
    """A complete request line; a tuple, which is made in a third of a dataclass's time.

    `path` is the key: see `path_of`. The line ends before offset `end`, its line end and the empty
    lines before it included; of a request in HTTP/2, the head.
    """

    method: bytes
    target: bytes
    path: bytes
    end: int


Inspection = NeedMore | Request | Bad

# RFC 9110 section 5.6.2:
#   token = 1*tchar
#   tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
#           / DIGIT / ALPHA
_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# RFC 5234: VCHAR = %x21-7E. RFC 3986 allows fewer characters in a URI; servers commonly take these.
_VCHAR = rb"[\x21-\x7e]"
# Of them, those before a query or a fragment: all but "?" and "#".
_PATH_CHAR = rb"[\x21\x22\x24-\x3e\x40-\x7e]"

# RFC 9112 section 2.2: "a server [...] SHOULD ignore at least one empty line (CRLF) received prior
# to the request-line", and "a recipient MAY recognize a single LF as a line terminator".
_EMPTY_LINES = re.compile(rb"(?:\r?\n){0,%d}+" % MAX_EMPTY_LINES)

# RFC 9112 section 3:  request-line   = method SP request-target SP HTTP-version
#                      method         = token
# section 3.2.1:       origin-form    = absolute-path [ "?" query ]
# section 2.3:         HTTP-version   = HTTP-name "/" DIGIT "." DIGIT
# The usual case at once: an origin-form target and the whole line. Groups: method, target, path.
_ORIGIN_FORM_LINE = re.compile(
    _EMPTY_LINES.pattern
    + rb"(%b{1,%d}+) ((/%b*+)%b*+) HTTP/1\.[0-9]\r?\n" % (_TCHAR, MAX_METHOD, _PATH_CHAR, _VCHAR)
)

_METHOD = re.compile(rb"%b*+" % _TCHAR)
_TARGET = re.compile(rb"%b*+" % _VCHAR)
_ORIGIN_PATH = re.compile(rb"(/%b*+)" % _PATH_CHAR)

# RFC 9112 section 3.2.2:  absolute-form = absolute-URI
# RFC 3986 section 4.3:    absolute-URI  = scheme ":" hier-part [ "?" query ]
# section 3:               hier-part     = "//" authority path-abempty / (forms without a host)
# section 3.1:             scheme        = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
_ABSOLUTE_PATH = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*+://[^/?#]*+((?:/%b*+)?)" % _PATH_CHAR)

_VERSION = b"HTTP/1."


def inspect(data: bytes, limit: int) -> Inspection:
    """What the first bytes of a connection are.

    The request line must end within `limit` bytes, its line end and any empty lines before it
    included. Never raises, whatever the bytes.
    """
    usual = _ORIGIN_FORM_LINE.match(data, 0, limit)
    if usual:
        method, target, path = usual.groups()
        return Request(method, target, path, usual.end())
    answer = _read_request_line(data[: max(limit, 0)])
    if answer is NEED_MORE and len(data) >= limit:
        return Bad(Reason.REQUEST_LINE_TOO_LONG)
    return answer


def path_of(method: bytes, target: bytes) -> bytes | None:
    """The key within a request target (RFC 9112 section 3.2), or None if it has none of the forms.

    origin-form and absolute-form: the path, without query or fragment, "/" if empty;
    asterisk-form: "*"; authority-form (with CONNECT only): the authority.
    """
    if target == b"*" or (method == b"CONNECT" and not target.startswith(b"/")):
        return target or None
    form = _ORIGIN_PATH.match(target) or _ABSOLUTE_PATH.match(target)
    return (form[1] or b"/") if form else None


def request_of(method: bytes, target: bytes, end: int) -> Request | Bad:
    """The request of a method and a target that did not come in one line."""
    if not 0 < len(method) <= MAX_METHOD or not _METHOD.fullmatch(method):
        return Bad(Reason.BAD_METHOD)
    path = path_of(method, target) if _TARGET.fullmatch(target) else None
    return Bad(Reason.BAD_TARGET) if path is None else Request(method, target, path, end)


def _read_request_line(data: bytes) -> Inspection:
    """The same answer step by step: for the unusual forms and for lines that are not complete."""
    start = _end_of(_EMPTY_LINES, data, 0)
    end = _end_of(_METHOD, data, start)
    if end == start:
        return _no_method(data, start)
    if end - start > MAX_METHOD:
        return Bad(Reason.BAD_METHOD)
    if end == len(data):
        return NEED_MORE
    if data[end : end + 1] != b" ":
        return Bad(Reason.BAD_METHOD)
    return _read_target(data[start:end], data, end + 1)


def _no_method(data: bytes, start: int) -> Inspection:
    """At `start`, behind the empty lines, no method begins."""
    rest = data[start:]
    if rest[:1] in (b"\r", b"\n") and data.count(b"\n", 0, start) == MAX_EMPTY_LINES:
        return Bad(Reason.EMPTY_LINES)
    if rest in (b"", b"\r"):
        return NEED_MORE
    # RFC 8446 section 5.1: a TLS record starts with its type, 22 for a handshake, and 0x03.
    if data.startswith(b"\x16"):
        if len(data) == 1:
            return NEED_MORE
        if data[1] == 0x03:
            return Bad(Reason.TLS_HELLO)
    return Bad(Reason.NOT_HTTP)


def _read_target(method: bytes, data: bytes, start: int) -> Inspection:
    end = _end_of(_TARGET, data, start)
    if end == len(data):
        return NEED_MORE
    if data[end : end + 1] != b" ":
        # A line that ends here is HTTP/0.9's, or lacks its version.
        ended = end > start and data[end : end + 1] in (b"\r", b"\n")
        return Bad(Reason.BAD_VERSION if ended else Reason.BAD_TARGET)
    target = data[start:end]
    path = path_of(method, target)
    if path is None:
        return Bad(Reason.BAD_TARGET)
    return _read_version(Request(method, target, path, end + 1), data)


def _read_version(request: Request, data: bytes) -> Inspection:
    """Of a request that has been read up to its `end`."""
    at = request.end
    name, minor, line_end = data[at : at + 7], data[at + 7 : at + 8], data[at + 8 : at + 10]
    if not _VERSION.startswith(name):
        # RFC 9113 section 3.4: "PRI * HTTP/2.0"
        preface = (*request[:2], name[:6]) == (b"PRI", b"*", b"HTTP/2")
        return Bad(Reason.HTTP2_PREFACE if preface else Reason.BAD_VERSION)
    if minor and not minor.isdigit():
        return Bad(Reason.BAD_VERSION)
    if line_end.startswith((b"\n", b"\r\n")):
        return request._replace(end=at + 8 + line_end.index(b"\n") + 1)
    return NEED_MORE if line_end in (b"", b"\r") else Bad(Reason.BAD_VERSION)


def _end_of(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the match of a pattern that also matches nothing ends."""
    match = pattern.match(data, start)
    return match.end() if match else start
