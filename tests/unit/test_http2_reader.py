"""Hosts, fields and cookies of HTTP/2 requests, for routes and keys as in HTTP/1."""

from __future__ import annotations

import pytest

from balancer.core.config import Route
from balancer.core.request.verdict import Reason
from tests.unit.http2_heads import GET, head, with_fields
from tests.unit.request_selectors import SOURCE, reason, request, selected, selector

BY_HOST = selector(key="host")
BY_FIELD = selector(key="header:X-Tenant")
BY_HOST_FIELD = selector(key="header:Host")
BY_COOKIE = selector(key="cookie:b")


def key(by, *added: tuple[bytes, bytes], **pseudo: bytes | None) -> bytes:
    return selected(by, head(with_fields(*added, **pseudo))).key


def fault(by, *added: tuple[bytes, bytes], **pseudo: bytes | None) -> Reason:
    return reason(by, head(with_fields(*added, **pseudo)))


# --- the host (RFC 9113 section 8.3.1) ---


@pytest.mark.parametrize(
    ("authority", "host", "found"),
    [
        (b"www.example", None, b"www.example"),
        (b"WWW.Example.:8080", None, b"www.example"),
        (b"[2001:db8::1]:80", None, b"[2001:db8::1]"),
        (None, b"www.example:80", b"www.example"),
        (b"", b"www.example", b"www.example"),
        (b"www.example", b"", b"www.example"),
        # the same in other words, and a port that the scheme implies (RFC 3986 section 6.2)
        (b"www.example", b"WWW.example.", b"www.example"),
        (b"www.example:80", b"www.example", b"www.example"),
        (b"www.example", b" www.example:80 ", b"www.example"),
        (b"www.example:", b"www.example:80", b"www.example"),
    ],
)
def test_the_host(authority: bytes | None, host: bytes | None, found: bytes) -> None:
    added = [] if host is None else [(b"host", host)]
    assert key(BY_HOST, *added, authority=authority) == found


def test_no_host_at_all() -> None:
    assert key(BY_HOST, authority=None) == SOURCE, "the key is missing"


@pytest.mark.parametrize(
    ("authority", "hosts", "why"),
    [
        (b"www.example", [b"other.example"], Reason.HTTP2_HOST_DIFFERS),
        (b"www.example:8080", [b"www.example"], Reason.HTTP2_HOST_DIFFERS),
        (b"www.example", [b"www.example:443"], Reason.HTTP2_HOST_DIFFERS),
        (b"www.example", [b"www.example"] * 2, Reason.SEVERAL_HOSTS),
        (None, [b"www.example", b"other"], Reason.SEVERAL_HOSTS),
        # "MUST NOT include the deprecated userinfo subcomponent"
        (b"user@www.example", [], Reason.BAD_HOST),
        (b"www.example/", [], Reason.BAD_HOST),
        (b":80", [], Reason.BAD_HOST),
        (b"www.example", [b"www example"], Reason.BAD_HOST),
        (None, [b"a@b"], Reason.BAD_HOST),
    ],
)
def test_a_host_that_cannot_be_trusted(
    authority: bytes | None, hosts: list[bytes], why: Reason
) -> None:
    added = [(b"host", host) for host in hosts]
    assert fault(BY_HOST, *added, authority=authority) is why
    assert key(selector(), *added, authority=authority) == b"/a", "nobody asks for it"


def test_an_https_request_implies_another_port() -> None:
    assert key(BY_HOST, (b"host", b"h"), authority=b"h:443", scheme=b"HTTPS") == b"h"
    assert fault(BY_HOST, (b"host", b"h"), authority=b"h:80", scheme=b"https") is (
        Reason.HTTP2_HOST_DIFFERS
    )


def test_connect_is_for_its_authority() -> None:
    connect = {"method": b"CONNECT", "scheme": None, "path": None, "authority": b"H.test:443"}
    assert key(BY_HOST, **connect) == b"h.test"
    assert key(BY_HOST, (b"host", b"other"), **connect) == b"h.test"


def test_the_authority_is_what_http_1_has_as_host() -> None:
    """RFC 9113 section 8.3.1, for who passes a request on in HTTP/1."""
    assert key(BY_HOST_FIELD) == b"www.example"
    assert key(BY_HOST_FIELD, (b"host", b"www.Example")) == b"www.example"
    assert key(BY_HOST_FIELD, (b"host", b"h"), authority=None) == b"h"
    assert fault(BY_HOST_FIELD, (b"host", b"a"), (b"host", b"a")) is Reason.SEVERAL_HOSTS


# --- fields and cookies ---


@pytest.mark.parametrize(
    ("added", "value"),
    [
        ([(b"x-tenant", b"blue")], b"blue"),
        ([(b"x-tenant", b" blue \t")], b"blue"),
        ([(b"x-tenant", b"a"), (b"x-other", b"o"), (b"x-tenant", b"b")], b"a, b"),
        ([(b"x-tenant", b""), (b"x-tenant", b"b")], b"b"),
        ([(b"x-tenant", b"\xe4\x01\x7f")], b"\xe4\x01\x7f"),
        ([(b"x-other", b"\0\r\n"), (b"x-tenant", b"a")], b"a"),
        ([], SOURCE),
    ],
)
def test_a_field_by_name(added: list[tuple[bytes, bytes]], value: bytes) -> None:
    assert key(BY_FIELD, *added) == value


@pytest.mark.parametrize("value", [b"a\0", b"a\rb", b"\n", b"a\r\nHost: b"])
def test_a_value_that_ends_a_line(value: bytes) -> None:
    assert fault(BY_FIELD, (b"x-tenant", value)) is Reason.BAD_FIELD_VALUE
    assert key(BY_HOST, (b"x-tenant", value)) == b"www.example", "nobody asks for it"


def test_cookies_are_joined() -> None:
    """RFC 9113 section 8.2.3: with "; "."""
    cookies = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2; c=3"), (b"cookie", b"d=4")]
    assert key(BY_COOKIE, *cookies) == b"2"
    assert key(selector(key="header:Cookie"), *cookies) == b"a=1; b=2; c=3; d=4"


ROUTES = (
    Route("hosted", host="img.example", method="PUT"),
    Route("below", host="*.img.example"),
    Route("beta", header={"x-beta": "yes", "cookie": "a=1; b=2"}),
    Route("regex", path_regex=r"/v[0-9]+/"),
    Route("prefix", path_prefix="/a"),
)


@pytest.mark.parametrize(
    ("pool", "method", "path", "host", "added"),
    [
        ("hosted", b"PUT", b"/", b"img.example:80", []),
        ("prefix", b"GET", b"/a", b"img.example", []),
        ("below", b"GET", b"/a", b"x.img.example", []),
        ("beta", b"GET", b"/a", b"h", [(b"x-beta", b"yes"), (b"cookie", b"a=1; b=2")]),
        ("regex", b"GET", b"/v12/x?y", b"h", []),
        ("p", b"GET", b"/V12/", b"h", [(b"x-beta", b"yes")]),
    ],
)
def test_routes_and_keys_as_in_http_1(
    pool: str, method: bytes, path: bytes, host: bytes, added: list[tuple[bytes, bytes]]
) -> None:
    """The same request in both, with a key of all kinds: all but the version is the same."""
    keys = ("uri", "host", "query:y", "header:x-beta", "cookie:b")
    by = selector(*ROUTES, key=keys, missing=("path", "source"))
    pseudo = {"method": method, "path": path, "authority": host}
    split = [(b"cookie", b"a=1"), (b"cookie", b"b=2")] if len(added) > 1 else []
    two = selected(by, head(with_fields(*added[:1], *split, **pseudo)))
    lines = [b"%b: %b" % field for field in [(b"Host", host), *added]]
    one = selected(by, request(*lines, line=b"%b %b HTTP/1.1" % (method, path)))
    assert two.pool == pool
    assert two._replace(http=1, request=one.request) == one
    assert two.request[:3] == one.request[:3]


def test_no_route() -> None:
    by = selector(Route("one", host="one.test"), default=None)
    assert selected(by, head(with_fields(authority=b"one.test"))).pool == "one"
    assert reason(by, head(GET)) is Reason.NO_ROUTE
