"""Header fields: literal cases from the RFCs, and h11 as an independent reader."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.core.request.selector import Selected
from balancer.core.request.verdict import NEED_MORE, Bad, Reason
from tests.unit.request_selectors import LIMIT, SOURCE, reason, request, selected, selector

BY_HOST = selector(key="host")
BY_FIELD = selector(key="header:X-Tenant")
NONE = (b"\xc0\x00\x02\x07", ("source",))  # the client's address, for want of the key


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        # RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS
        ([b"X-Tenant: blue"], b"blue"),
        ([b"X-Tenant:blue"], b"blue"),
        ([b"X-Tenant: \t blue \t "], b"blue"),
        ([b"X-Tenant: light  blue"], b"light  blue"),
        ([b"X-Tenant: a:b"], b"a:b"),
        # RFC 9110 section 5.1: names are case-insensitive
        ([b"x-tENANT: Blue"], b"Blue"),
        # section 5.3: one field of several lines; section 5.6.1.2: empty elements do not count
        ([b"X-Tenant: a", b"Host: h", b"x-tenant: b"], b"a, b"),
        ([b"X-Tenant: a", b"X-Tenant:", b"X-Tenant: b"], b"a, b"),
        # section 5.5: obs-text, and control characters that may be kept
        ([b"X-Tenant: \xe4\x01\x7f"], b"\xe4\x01\x7f"),
        # other fields are for the backend to judge
        ([b"X-Tenant: a", b"X-Tenant-Id: b", b"X-Ten: c", b"My-X-Tenant: d"], b"a"),
        ([b"Bad Name: x", b"No colon", b": ", b"X : y", b"Z: \0\r", b"X-Tenant: a"], b"a"),
        ([b"Other: x", b" X-Tenant: folded", b"X-Tenant: a"], b"a"),
        ([b" X-Tenant: behind the request line", b"X-Tenant: a"], b"a"),
        # section 2.2: a bare CR ends no line
        ([b"Other: x\rX-Tenant: no", b"X-Tenant: a"], b"a"),
    ],
)
def test_a_field_by_name(fields: list[bytes], value: bytes) -> None:
    found = selected(BY_FIELD, request(*fields))
    assert (found.key, found.parts, found.missing) == (value, ("header:X-Tenant",), ())
    bare = request(*fields).replace(b"\r\n", b"\n")  # RFC 9112 section 2.2: a single LF
    assert selected(BY_FIELD, bare).key == value


@pytest.mark.parametrize(
    "fields",
    [[], [b"X-Tenant:"], [b"X-Tenant: \t"], [b"X-Tenant:", b"X-Tenant:"], [b"X: X-Tenant: a"]],
)
def test_a_field_that_is_not_there_or_empty(fields: list[bytes]) -> None:
    found = selected(BY_FIELD, request(*fields))
    assert (found.key, found.parts) == NONE
    assert found.missing == ("header:X-Tenant",)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        # RFC 9112 section 5.1: 400 for white space before the colon
        ([b"X-Tenant : a"], Reason.SPACE_BEFORE_COLON),
        ([b"X-Tenant\t: a"], Reason.SPACE_BEFORE_COLON),
        ([b"X-Tenant: a", b"X-TENANT : b"], Reason.SPACE_BEFORE_COLON),
        # section 5.2: obs-fold
        ([b"X-Tenant: a", b" b"], Reason.FOLDED_FIELD),
        ([b"X-Tenant:", b"\tb"], Reason.FOLDED_FIELD),
        # section 2.2 and RFC 9110 section 5.5
        ([b"X-Tenant: a\rb"], Reason.BAD_FIELD_VALUE),
        ([b"X-Tenant: a\r"], Reason.BAD_FIELD_VALUE),
        ([b"X-Tenant: a\0"], Reason.BAD_FIELD_VALUE),
    ],
)
def test_a_needed_field_that_cannot_be_trusted(fields: list[bytes], why: Reason) -> None:
    assert reason(BY_FIELD, request(*fields)) is why
    unneeded = [field.replace(b"X-T", b"Y-T").replace(b"X-TENANT", b"Y-T") for field in fields]
    assert selected(BY_FIELD, request(*unneeded, b"X-Tenant: a")).key == b"a"


@pytest.mark.parametrize(
    ("target", "fields", "host"),
    [
        # RFC 9112 section 3.2
        (b"/", [b"Host: www.example.org"], b"www.example.org"),
        (b"/", [b"Host: WWW.Example.ORG:8080"], b"www.example.org"),
        (b"/", [b"Host: www.example.org."], b"www.example.org"),
        (b"/", [b"Host: www.example.org.:80"], b"www.example.org"),
        (b"/", [b"Host: www.example.org:"], b"www.example.org"),
        (b"/", [b"Host: 192.0.2.1"], b"192.0.2.1"),
        (b"/", [b"Host: [2001:DB8::1]:80"], b"[2001:db8::1]"),
        (b"/", [b"Host: a_b~!$&'()*+,;=%C3-1"], b"a_b~!$&'()*+,;=%c3-1"),
        (b"*", [b"Host: h"], b"h"),
        # section 3.2.2: an absolute target's host, whatever Host says
        (b"http://a.example/x", [b"Host: b.example"], b"a.example"),
        (b"http://A.example:80", [], b"a.example"),
        (b"HTTPS://a.example.?x", [b"Host: @"], b"a.example"),
        # not absolute
        (b"/?u=http://a.example/x", [b"Host: b.example"], b"b.example"),
        (b"//a.example/x", [b"Host: b.example"], b"b.example"),
    ],
)
def test_the_host(target: bytes, fields: list[bytes], host: bytes) -> None:
    found = selected(BY_HOST, request(*fields, line=b"GET %b HTTP/1.1" % target))
    assert (found.key, found.parts) == (host, ("host",))


def test_the_host_of_a_tunnel() -> None:
    """RFC 9112 section 3.2.3: authority-form."""
    connect = request(b"Host: other", line=b"CONNECT www.example.com:80 HTTP/1.1")
    assert selected(BY_HOST, connect).key == b"www.example.com"


@pytest.mark.parametrize("fields", [[], [b"Host:"], [b"Host: "]])
def test_a_request_without_a_host(fields: list[bytes]) -> None:
    """RFC 9112 section 3.2: an empty Host where there is no authority; the lack of one is for the
    backend to judge."""
    found = selected(BY_HOST, request(*fields))
    assert (found.key, found.parts) == NONE


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        # RFC 9112 section 3.2: 400, whether or not they are alike
        ([b"Host: a", b"Host: b"], Reason.SEVERAL_HOSTS),
        ([b"Host: a", b"X: y", b"hOST: a"], Reason.SEVERAL_HOSTS),
        ([b"Host: a", b"Host:"], Reason.SEVERAL_HOSTS),
        ([b"Host: a, b"], Reason.BAD_HOST),
        ([b"Host: a b"], Reason.BAD_HOST),
        ([b"Host: user@a"], Reason.BAD_HOST),
        ([b"Host: a/b"], Reason.BAD_HOST),
        ([b"Host: http://a"], Reason.BAD_HOST),
        ([b"Host: a:b"], Reason.BAD_HOST),
        ([b"Host: a:80:80"], Reason.BAD_HOST),
        ([b"Host: ::1"], Reason.BAD_HOST),
        ([b"Host: [::1"], Reason.BAD_HOST),
        ([b"Host: a%zz"], Reason.BAD_HOST),
        ([b"Host: \xc3\xa4"], Reason.BAD_HOST),
        ([b"Host: :80"], Reason.BAD_HOST),
        ([b"Host: ."], Reason.BAD_HOST),
        ([b"Host: " + b"a" * 256], Reason.BAD_HOST),
        ([b"Host : a"], Reason.SPACE_BEFORE_COLON),
        ([b"Host: a", b" b"], Reason.FOLDED_FIELD),
        ([b"Host: a\0"], Reason.BAD_FIELD_VALUE),
    ],
)
def test_a_host_that_cannot_be_trusted(fields: list[bytes], why: Reason) -> None:
    assert reason(BY_HOST, request(*fields)) is why
    assert selected(selector(), request(*fields)).key == b"/a", "nobody asks for it"


@pytest.mark.parametrize("target", [b"http://u@a/", b"http:///x", b"http://:80/", b"http://a,[/"])
def test_an_absolute_target_without_a_good_host(target: bytes) -> None:
    line = b"GET %b HTTP/1.1" % target
    assert reason(BY_HOST, request(b"Host: h", line=line)) is Reason.BAD_HOST


def test_several_hosts_are_bad_where_only_a_key_s_field_asks_for_them() -> None:
    by_field = selector(key="header:Host")
    assert selected(by_field, request(b"Host: A:80")).key == b"A:80"
    assert reason(by_field, request(b"Host: a", b"Host: b")) is Reason.SEVERAL_HOSTS


@pytest.mark.parametrize(
    "data", [request(b"Host: h"), b"GET / HTTP/1.0\n\n", b"\r\nGET / HTTP/1.1\n\r\n"]
)
def test_the_limit_counts_every_byte_up_to_the_empty_line(data: bytes) -> None:
    size = len(data)
    assert isinstance(BY_HOST.inspect(data, size, SOURCE), Selected)
    assert isinstance(BY_HOST.inspect(data + b"body", size, SOURCE), Selected)
    for end in range(size):
        assert BY_HOST.inspect(data[:end], size, SOURCE) is NEED_MORE
    long = (Bad(Reason.HEAD_TOO_LONG), Bad(Reason.REQUEST_LINE_TOO_LONG))
    for limit in range(size):
        assert BY_HOST.inspect(data + b"body", limit, SOURCE) in long


# --- h11 beside it --------------------------------------------------------------------------------

NAMES = (b"host", b"cookie", b"x-tenant")
lines = st.sampled_from(
    [
        b"Host: a.example",
        b"HOST:b.example:80",
        b"Cookie: sid=1; a=2",
        b"cookie:\tb=3 ",
        b"X-Tenant: blue",
        b"x-tenant:",
        b"X-Tenant: \xe4 x",
        b"X-Tenant : a",
        b" folded",
        b"\tfolded",
        b"X-Tenant: a\0",
        b"X-Tenant: a\rb",
        b"No colon",
        b": a",
        b"",
        b"Content-Length: 0",
    ]
)
heads = st.builds(
    lambda fields, end: b"GET /a HTTP/1.1" + end + b"".join(f + end for f in fields) + end,
    st.lists(lines, max_size=6),
    st.sampled_from([b"\r\n", b"\n"]),
)


def by_h11(data: bytes) -> dict[bytes, bytes] | None:
    """The fields of a request, joined, or None where h11 rejects it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    values: dict[bytes, list[bytes]] = {}
    for name, value in event.headers:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(filter(None, found)) for name, found in values.items()}


@given(heads)
@example(b"GET /a HTTP/1.1\r\nHost: a\r\nX-Tenant: a\r\n b\r\n\r\n")
@example(b"GET /a HTTP/1.1\r\nHost: a\r\nX-Tenant: a\r\nX-Tenant: b\r\n\r\n")
def test_what_h11_accepts_has_the_same_fields(data: bytes) -> None:
    fields = by_h11(data)
    if fields is None:
        return
    for name in NAMES:
        by_name = selector(key=f"header:{name.decode()}")
        answer = by_name.inspect(data, LIMIT, SOURCE)
        if isinstance(answer, Bad):
            assert answer.reason is Reason.FOLDED_FIELD, "which h11 mends"
        else:
            assert isinstance(answer, Selected)
            has = answer.key if not answer.missing else b""
            assert has == fields.get(name, b"")


def test_h11_and_we_have_both_seen_good_ones() -> None:
    """What the property above rests on: h11 accepts such heads."""
    assert by_h11(request(b"Host: a", b"X-Tenant: b")) == {b"host": b"a", b"x-tenant": b"b"}
