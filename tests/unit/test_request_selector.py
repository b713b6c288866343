"""Selecting as a whole: when it is decided, that it is final, and real clients' requests."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.core.config import Route
from balancer.core.request import line
from balancer.core.request.selector import Selected, Selector
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason
from tests.fuzz import recorded
from tests.unit.request_selectors import LIMIT, SOURCE, pool, request, selected, selector

BY_LINE = {
    "path": selector(),
    "uri": selector(key="uri"),
    "never missing": selector(key=("path", "source"), missing=("host", "cookie:a")),
    "path, never missing": selector(missing="header:x"),
    "query": selector(key=("query:a", "source")),
    "routes": selector(
        Route("one", path_prefix="/a"), Route("two", path_regex=".*b"), Route("three", method="PUT")
    ),
}
BY_HEAD = {
    "host": selector(key="host"),
    "missing": selector(key="query:a", missing="header:X"),
    "host routes": selector(Route("one", host="h"), Route("two", host="*.h"), default=None),
    "field routes": selector(Route("one", header={"x": "1"}), key=("path", "cookie:a")),
    "one of two pools": Selector((Route("q"),), [pool("p"), pool("q", key="header:x")], "p"),
}
ALL = BY_LINE | BY_HEAD
every = pytest.mark.parametrize("by", ALL.values(), ids=ALL)


def test_what_needs_header_fields() -> None:
    assert not any(by.needs_fields for by in BY_LINE.values())
    assert all(by.needs_fields for by in BY_HEAD.values())


@pytest.mark.parametrize("by", BY_LINE.values(), ids=BY_LINE)
def test_without_fields_the_request_line_decides(by: Selector) -> None:
    start = b"GET /a?a=1 HTTP/1.1\r\n"
    for end in range(len(start)):
        assert by.inspect(start[:end], LIMIT, SOURCE) is NEED_MORE
    assert isinstance(by.inspect(start, len(start), SOURCE), Selected)


@pytest.mark.parametrize("by", BY_HEAD.values(), ids=BY_HEAD)
def test_with_fields_the_whole_head_decides(by: Selector) -> None:
    head = request(b"Host: h", b"X: 1", b"Cookie: a=2")
    for end in range(len(head)):
        assert by.inspect(head[:end], LIMIT, SOURCE) is NEED_MORE
    assert isinstance(by.inspect(head, len(head), SOURCE), Selected)
    assert by.inspect(b"G@T", LIMIT, SOURCE) == Bad(Reason.BAD_METHOD), "that is certain before"


def test_what_selected_says() -> None:
    by = selector(Route("one", host="h", name="there"), key=("host", "cookie:a"))
    found = selected(by, request(b"Host: h", b"Cookie: a=2"))
    line_ = line.Request(b"GET", b"/a", b"/a", 17)
    parts = ("host", "cookie:a")
    assert found == Selected("one", b"\x001:h,1:2,", "there", parts, (), line_)


def test_the_path_s_key_is_the_path() -> None:
    """As it always was: a running installation's choices stay."""
    for target in (b"/a/b?c", b"http://h/a/b"):
        assert selected(selector(), request(line=b"GET %b HTTP/1.1" % target)).key == b"/a/b"


# --- properties -----------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"PUT http://h/a?a=1 HTTP/1.0\n",
        b"GET /b?a= HTTP/1.1\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"Host: x.h:80\n",
        b"host : h\r\n",
        b"Host: \xff\r\n",
        b"X: 1\r\n",
        b"x:\n",
        b"X: \0\n",
        b"Cookie: b=1; a=2\r\n",
        b"Cookie: a",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\x16\x03",
    ]
)
starts = st.one_of(st.lists(pieces, max_size=8).map(b"".join), st.binary(max_size=60))
limits = st.one_of(st.just(LIMIT), st.integers(0, 80))


@every
@given(starts, limits)
@example(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nHost: x.h\r\n\r\n", LIMIT)
@example(b"GET / HTTP/1.1\n\nHost: h\n\n", LIMIT)
def test_a_decision_is_final_and_comes_when_it_may(by: Selector, data: bytes, limit: int) -> None:
    """Byte by byte: never raises; once decided, decided the same for ever; and what follows a
    NeedMore is not decided without a byte of which `may_decide` says so."""
    decided: Bad | NeedMore | Selected = NEED_MORE
    seen = 0  # as the packets' code does, which asks only when it may be worth it
    for end in range(len(data) + 1):
        answer = by.inspect(data[:end], limit, SOURCE)
        assert isinstance(answer, (NeedMore, Bad, Selected))
        if decided is not NEED_MORE:
            assert answer == decided
        elif isinstance(answer, Selected):
            assert seen == 0 or by.may_decide(data[:end], seen)
        if answer is NEED_MORE:
            assert end < limit, "whoever waits gets room for it"
        decided, seen = answer, end


@given(starts, st.integers(0, 80), st.integers(0, 80))
def test_segments_do_not_matter(data: bytes, one: int, other: int) -> None:
    """Asked after some bytes only, where `may_decide` says so, the end is the same."""
    for by in ALL.values():
        whole = by.inspect(data, LIMIT, SOURCE)
        answer, had = by.inspect(data[:one], LIMIT, SOURCE), one
        for end in (one + other, len(data)):
            if answer is NEED_MORE and (not had or by.may_decide(data[:end], had)):
                answer = by.inspect(data[:end], LIMIT, SOURCE)
            had = end
        assert answer == whole or (answer is NEED_MORE and isinstance(whole, Bad))


# --- real ones ------------------------------------------------------------------------------------


def first_bytes() -> list[bytes]:
    """What the clients recorded in the lab sent first: curl, wrk, websockets and others."""
    found = []
    for connection in recorded.connections("balancer"):
        payloads = [s.payload for s in connection if s.payload and s.src != recorded.SERVER]
        if payloads:
            found.append(payloads[0])
    return found


def test_recorded_requests() -> None:
    """curl's head is there whole and names the host; by the path they are selected as by the line
    alone."""
    whole = 0
    for data in first_bytes():
        read = line.inspect(data, LIMIT)
        answer = selector().inspect(data, LIMIT, SOURCE)
        if isinstance(read, line.Request):
            assert isinstance(answer, Selected)
            assert (answer.key, answer.request) == (read.path, read)
        elif read != Bad(Reason.HTTP2_PREFACE):  # of which there is more to read
            assert answer == read
        if b"\r\nHost: " in data and b"\r\n\r\n" in data:
            host = data.partition(b"\r\nHost: ")[2].partition(b"\r\n")[0].partition(b":")[0]
            assert selected(selector(key="host"), data).key == host.lower()
            whole += 1
    assert whole >= 3
