"""The request line: a table of cases, every prefix of them, a naive model beside the regexes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.core.request.line import MAX_EMPTY_LINES, Inspection, Request, inspect
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason

LIMIT = 8192

GOOD = [
    # (bytes up to the end of the request line, method, target, path)
    (b"GET / HTTP/1.1\r\n", b"GET", b"/", b"/"),
    (b"GET /a/b.html HTTP/1.0\r\n", b"GET", b"/a/b.html", b"/a/b.html"),
    (b"GET /a HTTP/1.9\r\n", b"GET", b"/a", b"/a"),
    (b"GET /a HTTP/1.1\n", b"GET", b"/a", b"/a"),
    (b"\r\nGET /a HTTP/1.1\r\n", b"GET", b"/a", b"/a"),
    (b"\n\r\n\nGET /a HTTP/1.1\r\n", b"GET", b"/a", b"/a"),
    (b"\r\n" * MAX_EMPTY_LINES + b"GET /a HTTP/1.1\r\n", b"GET", b"/a", b"/a"),
    (b"POST /a?b=/c?d#e HTTP/1.1\r\n", b"POST", b"/a?b=/c?d#e", b"/a"),
    (b"GET /a#b?c HTTP/1.1\r\n", b"GET", b"/a#b?c", b"/a"),
    (b"GET /? HTTP/1.1\r\n", b"GET", b"/?", b"/"),
    (b"GET //x/y HTTP/1.1\r\n", b"GET", b"//x/y", b"//x/y"),
    (b"GET /a%20b/../c HTTP/1.1\r\n", b"GET", b"/a%20b/../c", b"/a%20b/../c"),
    (b'GET /"<>\\^`{|}~ HTTP/1.1\r\n', b"GET", b'/"<>\\^`{|}~', b'/"<>\\^`{|}~'),
    (b"GET http://host/path?q HTTP/1.1\r\n", b"GET", b"http://host/path?q", b"/path"),
    (b"GET http://host HTTP/1.1\r\n", b"GET", b"http://host", b"/"),
    (b"GET http://host?q=/x HTTP/1.1\r\n", b"GET", b"http://host?q=/x", b"/"),
    (b"GET HTTPS://[::1]:80/x#y HTTP/1.1\r\n", b"GET", b"HTTPS://[::1]:80/x#y", b"/x"),
    (b"OPTIONS * HTTP/1.1\r\n", b"OPTIONS", b"*", b"*"),
    (b"CONNECT host:443 HTTP/1.1\r\n", b"CONNECT", b"host:443", b"host:443"),
    (b"CONNECT [::1]:443 HTTP/1.1\r\n", b"CONNECT", b"[::1]:443", b"[::1]:443"),
    (b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\n", b"!#$%&'*+-.^_`|~09azAZ", b"/", b"/"),
    (b"M" * 32 + b" / HTTP/1.1\r\n", b"M" * 32, b"/", b"/"),
    (b"PRI * HTTP/1.1\r\n", b"PRI", b"*", b"*"),
]

BAD = [
    # (the shortest bytes that show it, reason)
    (b"\x16\x03", Reason.TLS_HELLO),
    (b"\x16\x02", Reason.NOT_HTTP),
    (b"\x00", Reason.NOT_HTTP),
    (b" ", Reason.NOT_HTTP),
    (b"\x80", Reason.NOT_HTTP),
    (b"(", Reason.NOT_HTTP),
    (b"\r ", Reason.NOT_HTTP),
    (b"\r\r", Reason.NOT_HTTP),
    (b"\r\n ", Reason.NOT_HTTP),
    (b"\r\n\x16", Reason.NOT_HTTP),
    (b"\r\n" * MAX_EMPTY_LINES + b"\r", Reason.EMPTY_LINES),
    (b"\n" * MAX_EMPTY_LINES + b"\n", Reason.EMPTY_LINES),
    (b"PRI * HTTP/2", Reason.HTTP2_PREFACE),
    (b"GET\r", Reason.BAD_METHOD),
    (b"GET\t", Reason.BAD_METHOD),
    (b"GE\x00", Reason.BAD_METHOD),
    (b"SSH-2.0-OpenSSH_9.2p1\r", Reason.BAD_METHOD),
    (b"M" * 33, Reason.BAD_METHOD),
    (b"GET  ", Reason.BAD_TARGET),
    (b"GET \r", Reason.BAD_TARGET),
    (b"GET \t", Reason.BAD_TARGET),
    (b"GET /a\t", Reason.BAD_TARGET),
    (b"GET /\xc3", Reason.BAD_TARGET),
    (b"GET /\x7f", Reason.BAD_TARGET),
    (b"GET a ", Reason.BAD_TARGET),
    (b"GET ?q ", Reason.BAD_TARGET),
    (b"GET *x ", Reason.BAD_TARGET),
    (b"GET host:443 ", Reason.BAD_TARGET),
    (b"GET urn:x ", Reason.BAD_TARGET),
    (b"GET 1http://host/ ", Reason.BAD_TARGET),
    (b"CONNECT  ", Reason.BAD_TARGET),
    (b"GET /\r", Reason.BAD_VERSION),
    (b"GET /\n", Reason.BAD_VERSION),
    (b"GET /  ", Reason.BAD_VERSION),
    (b"GET / h", Reason.BAD_VERSION),
    (b"GET / HTTP/2", Reason.BAD_VERSION),
    (b"GET / HTTP/0", Reason.BAD_VERSION),
    (b"GET / HTTP/1,", Reason.BAD_VERSION),
    (b"GET / HTTP/1.\r", Reason.BAD_VERSION),
    (b"GET / HTTP/1.x", Reason.BAD_VERSION),
    (b"GET / HTTP/1.1 ", Reason.BAD_VERSION),
    (b"GET / HTTP/1.11", Reason.BAD_VERSION),
    (b"GET / HTTP/1.1\r\r", Reason.BAD_VERSION),
    (b"GET / HTTP/1.1\rX", Reason.BAD_VERSION),
]

TAILS = [b"", b"\r\n", b"Host: x\r\n\r\n", b"\x00\xff", b"."]


@pytest.mark.parametrize(("line", "method", "target", "path"), GOOD)
def test_good_request_byte_by_byte(line: bytes, method: bytes, target: bytes, path: bytes) -> None:
    for end in range(len(line)):
        assert inspect(line[:end], LIMIT) is NEED_MORE
    for tail in TAILS:
        assert inspect(line + tail, LIMIT) == Request(method, target, path, len(line))


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_bad_at_the_first_byte_that_shows_it(line: bytes, reason: Reason) -> None:
    for end in range(len(line)):
        assert inspect(line[:end], LIMIT) is NEED_MORE
    for tail in [*TAILS, b" / HTTP/1.1\r\n", b"\n"]:
        assert inspect(line + tail, LIMIT) == Bad(reason)


def test_the_whole_http2_preface() -> None:
    """RFC 9113 section 3.4."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert inspect(preface, LIMIT) == Bad(Reason.HTTP2_PREFACE)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"\r\n\r\nGET http://host/a HTTP/1.1\n",
    ],
)
def test_limit_counts_every_byte_up_to_the_line_end(line: bytes) -> None:
    assert isinstance(inspect(line, len(line)), Request)
    assert isinstance(inspect(line + b"Host: x\r\n", len(line)), Request)
    for limit in range(1, len(line)):
        assert inspect(line[: limit - 1], limit) is NEED_MORE
        assert inspect(line[:limit], limit) == Bad(Reason.REQUEST_LINE_TOO_LONG)
        assert inspect(line + b"Host: x\r\n", limit) == Bad(Reason.REQUEST_LINE_TOO_LONG)


def test_a_fault_within_the_limit_is_named_before_the_limit() -> None:
    assert inspect(b"GET /\x00" + b"a" * 100, 6) == Bad(Reason.BAD_TARGET)
    assert inspect(b"GET /\x00" + b"a" * 100, 5) == Bad(Reason.REQUEST_LINE_TOO_LONG)


@pytest.mark.parametrize("limit", [0, -1])
def test_no_room_at_all(limit: int) -> None:
    assert inspect(b"GET / HTTP/1.1\r\n", limit) == Bad(Reason.REQUEST_LINE_TOO_LONG)


# --- properties -----------------------------------------------------------------------------------

WORDS = b"GET CONNECT PRI / * http://h ? # a:1 HTTP/1. HTTP/2.0 1 MMMMMMMMMMMMMMMM".split()
fragments = st.sampled_from([*WORDS, b" ", b"\r", b"\n", b"\r\n", b"\x16", b"\x03", b"\0", b"\xff"])
requests = st.builds(
    b"".join,
    st.tuples(
        st.sampled_from([b"", b"\r\n", b"\n\n", b"\r"]),
        st.sampled_from([b"GET", b"CONNECT", b"PRI", b"M" * 33, b""]),
        st.sampled_from([b" ", b"", b"  "]),
        st.sampled_from([b"/", b"/a?b#c", b"*", b"http://h/x?y", b"http://h", b"a", b"", b"h:1"]),
        st.sampled_from([b" ", b"", b"\t"]),
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.", b"HTTP/2.0", b"http/1.1", b""]),
        st.sampled_from([b"\r\n", b"\n", b"\r", b" \r\n", b"\r\nHost: x\r\n\r\n"]),
    ),
)
starts = st.one_of(st.binary(max_size=60), st.lists(fragments, max_size=14).map(b"".join), requests)
limits = st.one_of(st.just(LIMIT), st.integers(-1, 40))


@given(starts, limits)
@example(b"PRI * HTTP/2.0\r\n\r\n", LIMIT)
def test_a_decision_is_final(data: bytes, limit: int) -> None:
    """Byte by byte: never raises, and once decided, decided the same for ever."""
    decided: Inspection | None = None
    for end in range(len(data) + 1):
        answer = inspect(data[:end], limit)
        assert isinstance(answer, (NeedMore, Request, Bad))
        if decided is not None:
            assert answer == decided
        elif answer is not NEED_MORE:
            decided = answer


def model(whole: bytes) -> Request | None:
    """A complete valid line, by splitting; else None."""
    data, empty = whole, 0
    while data[:1] == b"\n" or data[:2] == b"\r\n":
        data = data.split(b"\n", 1)[1]
        empty += 1
    line, line_end, rest = data.partition(b"\n")
    parts = line.removesuffix(b"\r").split(b" ")
    if empty > MAX_EMPTY_LINES or not line_end or len(parts) != 3:
        return None
    method, target, version = parts
    alphabet = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if not 1 <= len(method) <= 32 or method.strip(alphabet):
        return None
    if not target or any(not 0x21 <= byte <= 0x7E for byte in target):
        return None
    if version not in [b"HTTP/1.%d" % minor for minor in range(10)]:
        return None
    path = model_path(method, target)
    return None if path is None else Request(method, target, path, len(whole) - len(rest))


def model_path(method: bytes, target: bytes) -> bytes | None:
    bare = target.split(b"#")[0].split(b"?")[0]
    if target.startswith(b"/"):
        return bare
    if target == b"*" or method == b"CONNECT":
        return target
    scheme, separator, rest = bare.partition(b"://")
    text = scheme.decode("ascii")
    if not separator or not text[:1].isalpha() or not set(text) <= set(URI_SCHEME):
        return None
    return b"/" + rest.partition(b"/")[2]


URI_SCHEME = "+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@given(starts)
def test_request_exactly_where_the_model_finds_one(data: bytes) -> None:
    answer = inspect(data, LIMIT)
    assert (answer if isinstance(answer, Request) else None) == model(data)
