"""Keys: their parts by literal cases, and that several are joined so that none is mistaken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.request import keys
from tests.unit.request_selectors import SOURCE, request, selected, selector


def key(part: str, target: bytes, *fields: bytes) -> bytes | None:
    """A part's value; None where it is missing."""
    found = selected(selector(key=part), request(*fields, line=b"GET %b HTTP/1.1" % target))
    assert (found.key == SOURCE) == bool(found.missing)
    return None if found.missing else found.key


@pytest.mark.parametrize(
    ("target", "path", "uri"),
    [
        (b"/a/b", b"/a/b", b"/a/b"),
        (b"/a?b=c&d", b"/a", b"/a?b=c&d"),
        (b"/a?", b"/a", b"/a?"),
        (b"/a?b?c", b"/a", b"/a?b?c"),
        (b"/a?b#c", b"/a", b"/a?b"),
        (b"/a#b?c", b"/a", b"/a"),
        (b"/a%20b/../c", b"/a%20b/../c", b"/a%20b/../c"),
        # the same whether or not the target names the host
        (b"http://h/a?b", b"/a", b"/a?b"),
        (b"http://h?b", b"/", b"/?b"),
        (b"http://h", b"/", b"/"),
        (b"*", b"*", b"*"),
    ],
)
def test_path_and_uri(target: bytes, path: bytes, uri: bytes) -> None:
    assert (key("path", target), key("uri", target)) == (path, uri)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (b"/?a=1", b"1"),
        (b"/?a=1&b=2", b"1"),
        (b"/?b=2&a=1", b"1"),
        (b"/?a=1&a=2", b"1"),
        (b"/?a=1=2?3/4", b"1=2?3/4"),
        (b"/?a=%31+", b"%31+"),  # nothing is decoded
        (b"http://h?a=1#a=2", b"1"),
        (b"/?a", None),
        (b"/?a=", None),
        (b"/?A=1", None),
        (b"/?aa=1&ba=2", None),
        (b"/?b=a=1", None),
        (b"/?%61=1", None),
        (b"/a=1", None),
        (b"/#?a=1", None),
        (b"/?b#a=1", None),
    ],
)
def test_a_query_parameter(target: bytes, value: bytes | None) -> None:
    assert key("query:a", target) == value


def test_a_parameter_s_name_is_no_pattern() -> None:
    assert key("query:a.[]", b"/?aX[]=1&a.[]=2") == b"2"


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        # RFC 6265 section 3.1
        ([b"Cookie: SID=31d4d96e407aad42; lang=en-US"], b"31d4d96e407aad42"),
        ([b"Cookie: lang=en-US; SID=31d4"], b"31d4"),
        ([b"Cookie: lang=en-US;SID=31d4;x=y"], b"31d4"),
        ([b"Cookie: SID = 31d4 ; x=y"], b"31d4"),
        ([b"Cookie: SID=1; SID=2"], b"1"),
        ([b'Cookie: SID="a=b"'], b'"a=b"'),
        ([b"Cookie: a=b", b"Cookie: SID=1", b"Cookie: SID=2"], b"1"),
        ([b"Cookie: sid=1; XSID=2; SIDX=3; a=SID=4"], None),
        ([b"Cookie: SID"], None),
        ([b"Cookie: SID="], None),
        ([b"Set-Cookie: SID=1", b"Cookie2: SID=1"], None),
        ([], None),
    ],
)
def test_a_cookie(fields: list[bytes], value: bytes | None) -> None:
    assert key("cookie:SID", b"/", *fields) == value


def test_the_source_is_the_client_s_address() -> None:
    found = selected(selector(key="source"), request())
    assert (found.key, found.parts, found.missing) == (SOURCE, ("source",), ())


def test_what_is_used_for_a_missing_key() -> None:
    by = selector(key=("cookie:sid", "host"), missing=("query:sid", "path"))
    whole = selected(by, request(b"Host: h", b"Cookie: sid=7"))
    assert (whole.parts, whole.missing) == (("cookie:sid", "host"), ())
    instead = selected(by, request(b"Host: h", line=b"GET /a?sid=7 HTTP/1.1"))
    assert (instead.parts, instead.missing) == (("query:sid", "path"), ("cookie:sid",))
    neither = selected(by, request())
    assert neither.key == SOURCE
    assert neither.parts == ("source",)
    assert neither.missing == ("cookie:sid", "host", "query:sid")


def test_one_part_is_its_bytes_and_several_are_netstrings() -> None:
    """D. J. Bernstein, Netstrings (1997): "12:hello world!," """
    line = b"GET /hello_world HTTP/1.1"
    assert selected(selector(key="path"), request(line=line)).key == b"/hello_world"
    both = selected(selector(key=("path", "host")), request(b"Host: hello.world!", line=line))
    assert both.key == b"\x0012:/hello_world,12:hello.world!,"


values = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=6),
        st.text("0123456789:,", min_size=1, max_size=8).map(str.encode),
    ).filter(lambda value: value[0] != 0),  # as no value begins but an address, of four bytes
    min_size=1,
    max_size=4,
)


@given(values, values)
def test_different_parts_make_different_keys(one: list[bytes], other: list[bytes]) -> None:
    assert (keys._bound(one) == keys._bound(other)) == (one == other)
    assert keys._unbound(keys._bound(one), len(one)) == one


def test_a_key_in_words() -> None:
    assert keys.shown(b"/a b\x00\xe4", ("path",)) == "path=/a b\\x00\\xe4"
    assert keys.shown(SOURCE, ("source",)) == "source=192.0.2.7"
    assert keys.shown(b"\x001:h,4:\x0a\0\0\x01,", ("host", "source")) == "host=h source=10.0.0.1"
    long = keys.shown(b"a" * 9000, ("header:x",))
    assert long.endswith("aaa...") and len(long) == len("header:x=") + keys.SHOWN
