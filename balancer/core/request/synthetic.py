"""Requests as a client would send them, from what somebody asks about: METHOD URL --header."""

import re
from collections.abc import Iterable

from balancer.core.request.line import MAX_METHOD, path_of


class UnsendableError(Exception):
    """No request can say this; the text, one line, says what is wrong and what would be right."""


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHOD = re.compile(rf"{_TOKEN}{{1,{MAX_METHOD}}}")
_HTTP_URL = re.compile(r"(?i:http)://(?P<authority>[^/?#]+)(?P<target>[^#]*)")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS
_HEADER = re.compile(rf"({_TOKEN}+):[ \t]*([^\r\n\0]*)")


def request_bytes(method: str, url: str, headers: Iterable[str] = ()) -> bytes:
    """The head of an HTTP/1.1 request for ``url``: `http://HOST/PATH`, `/PATH`, `*`, or with
    CONNECT `HOST:PORT`. ``headers`` are written `NAME: VALUE`; a Host among them takes the place of
    the URL's. Raises UnsendableError."""
    if not _METHOD.fullmatch(method):
        raise UnsendableError(f"method {method!r} is wrong; right would be one such as GET")
    target, host = _target(method, url)
    fields = [_field(header) for header in headers]
    if host and not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", host))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "".join(f"{text}\r\n" for text in [*lines, ""]).encode("utf-8")


def _target(method: str, url: str) -> tuple[str, str]:
    """The request's target (RFC 9112 section 3.2), without what a client keeps to itself (RFC 9110
    section 7.1: the fragment), and the host."""
    if not _VISIBLE.fullmatch(url):
        what = f"URL {url!r} is wrong"
        raise UnsendableError(f"{what}; right would be visible ASCII, all else as %XX")
    found = _HTTP_URL.fullmatch(url.partition("#")[0])
    if found and method != "CONNECT":
        target = found["target"]
        return target if target.startswith("/") else "/" + target, found["authority"]
    target = url.partition("#")[0]
    # A URL with another scheme would go to a proxy as it is, which this is not.
    elsewhere = "://" in target.partition("?")[0] and not target.startswith("/")
    if elsewhere or path_of(method.encode("ascii"), target.encode("ascii")) is None:
        raise UnsendableError(f"URL {url!r} is wrong; right would be http://HOST/PATH or /PATH")
    return target, target if method == "CONNECT" and not target.startswith("/") else ""


def _field(header: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(header)
    if not found:
        raise UnsendableError(f"header {header!r} is wrong; right would be NAME: VALUE")
    return found[1], found[2].rstrip(" \t")
