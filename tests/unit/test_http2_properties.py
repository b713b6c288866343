"""Random requests by nghttp2's encoder in random frames: read as they were meant, however they
come. And bytes that mean nothing: never an exception, and what is said once stays so."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from balancer.core.request.http2.message import Message, inspect
from balancer.core.request.selector import Selected
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore
from tests.unit.http2_heads import (
    PING,
    PREFACE,
    PRIORITIES,
    SETTINGS,
    START,
    WINDOW_UPDATE,
    continuation,
    frame,
    head,
    headers,
    with_fields,
)
from tests.unit.nghttp2_encoder import TABLE, encoded
from tests.unit.request_selectors import SOURCE, selector

LIMIT = 16384

tokens = st.text("abcxyz09-_.!#", min_size=1, max_size=12).map(str.encode)
values = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"gzip, deflate", b"*/*", b"z"]))
paths = st.text("/abc?=&%2#~<>'\"", max_size=60).map(lambda text: b"/" + text.encode())
requests = st.tuples(
    st.sampled_from([b"GET", b"POST", b"PUT", b"BREW", b"OPTIONS"]),
    st.sampled_from([b"http", b"https"]),
    st.sampled_from([b"www.example", b"h:80", b"[::1]:8080", b""]),
    paths,
    st.lists(st.tuples(tokens, values), max_size=12),
)
table_sizes = st.lists(st.integers(0, TABLE), max_size=3)
cuts = st.lists(st.integers(0, 400), max_size=6)
priorities = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"pad_length": st.integers(0, 255)}),
    st.fixed_dictionaries(
        {"depends_on": st.integers(0, 9), "stream_weight": st.integers(0, 255)},
        optional={"pad_length": st.integers(0, 255)},
    ),
)
before = st.lists(
    st.sampled_from([SETTINGS, WINDOW_UPDATE, PRIORITIES, PING, frame(0x42, 1, 2, b"grease")]),
    max_size=4,
).map(b"".join)

streams = st.integers(0, 1000).map(lambda number: 2 * number + 1)


@given(requests, table_sizes, st.booleans(), cuts, priorities, before, streams, st.data())
def test_a_request_is_read_as_it_was_meant(
    asked, sizes, never, cut, layout, frames, stream, data
) -> None:
    method, scheme, authority, path, added = asked
    pseudo = [(b":method", method), (b":scheme", scheme), (b":path", path)]
    pseudo += [(b":authority", authority)] if authority else []
    pseudo = data.draw(st.permutations(pseudo))
    block = encoded([(name, value, never) for name, value in [*pseudo, *added]], sizes)
    ends = [*sorted({min(end, len(block)) for end in cut}), len(block)]
    parts = [block[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    sent = START + frames + headers(parts[0], stream, end=len(parts) == 1, **layout)
    for place, part in enumerate(parts[1:], 2):
        sent += continuation(part, stream, end=place == len(parts))
    answer = inspect(sent + data.draw(st.binary(max_size=20)), LIMIT)
    assert isinstance(answer, Message)
    assert answer.request[:2] == (method, path)
    assert answer.request.path == path.partition(b"#")[0].partition(b"?")[0]
    assert answer.request.end == len(sent)
    assert (answer.scheme, answer.authority, answer.fields) == (scheme, authority, added)
    for end in {0, 1, len(START), len(sent) - 1, data.draw(st.integers(0, len(sent) - 1))}:
        assert isinstance(inspect(sent[:end], LIMIT), NeedMore)


pieces = st.sampled_from(
    [
        PREFACE,
        PREFACE[:9],
        SETTINGS,
        WINDOW_UPDATE,
        PING,
        head(with_fields()),
        headers(b"\x82\x86\x84", end=False),
        continuation(b"\x41\x01h", end=False),
        continuation(b""),
        frame(1, 0xFF, 1, b"\x03" + bytes(9)),
        frame(1, 4, 1, b"\x82\x86\x84\x00\x04Host\x01a"),
        frame(0, 0, 1, b"x"),
        frame(9, 4, 3),
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
)
begins = st.sampled_from([START, PREFACE, b"", b"PRI "])
bytes_ = st.one_of(st.lists(pieces, max_size=6).map(b"".join), st.binary(max_size=80))
SELECTORS = [selector(), selector(key=("host", "cookie:a", "header:x"))]


@given(begins, bytes_, st.one_of(st.just(LIMIT), st.integers(0, 150)))
@example(START, headers(b"\x82\x86\x84", end=False) + continuation(b""), LIMIT)
def test_a_decision_is_final_and_comes_when_it_may(begin: bytes, rest: bytes, limit: int) -> None:
    data = begin + rest
    for by in SELECTORS:
        decided: Bad | NeedMore | Selected = NEED_MORE
        for end in range(len(data) + 1):
            answer = by.inspect(data[:end], limit, SOURCE)
            assert isinstance(answer, (NeedMore, Bad, Selected))
            if not isinstance(decided, NeedMore):
                assert answer == decided
            elif end < min(decided.until, limit):
                assert isinstance(answer, NeedMore), "it said how much would be missing"
            elif isinstance(answer, Selected):
                assert end < 2 or by.may_decide(data[:end], end - 1)
            if isinstance(answer, NeedMore):
                assert end < limit, "whoever waits gets room for it"
            decided = answer


@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_section_at_all(block: bytes, cut: int) -> None:
    """HPACK of no sense, alone and behind a sound beginning."""
    for section in (block, b"\x82\x86\x84" + block):
        answers = {
            str(inspect(START + sent, LIMIT))
            for sent in (
                headers(section),
                headers(section[:cut], end=False) + continuation(section[cut:]),
            )
        }
        assert len({answer.partition("end=")[0] for answer in answers}) == 1
