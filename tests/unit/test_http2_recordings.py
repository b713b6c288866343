"""What real clients sent first (tests/unit/record_http2.py), split anywhere and byte by byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from balancer.core.request.http2.frames import PREFACE
from balancer.core.request.selector import Selected
from balancer.core.request.verdict import Bad, NeedMore, Reason
from tests.unit.balancer_stage import Client, Stage, handoff_of
from tests.unit.request_selectors import LIMIT, SOURCE, request, selected, selector
from tests.unit.scapy_oracle import fields

RECORDINGS = Path(__file__).parent / "http2_recordings"
LARGE = "nghttp_continued"
LOCAL = rb"127\.0\.0\.1"
# Method, target, host, cookie.
SAID = {
    "curl": (b"GET", b"/curl/path?q=1", LOCAL, b"a=1; b=2"),
    "curl_post": (b"POST", b"/curl/post", rb"www\.example", b""),
    "nghttp": (b"GET", b"/nghttp/1?q", LOCAL, b""),
    "nghttp_padded": (b"GET", b"/padded", rb"www\.example", b""),
    "nghttp_no_table": (b"GET", b"/no/table", LOCAL, b""),
    "nghttp_no_priority": (b"GET", b"/no/dep", LOCAL, b""),
    LARGE: (b"GET", b"/continued", LOCAL, b""),
    "h2load": (b"GET", b"/h2load", LOCAL, b""),
    "node": (b"GET", b"/node?q", LOCAL, b"a=1; b=2"),
    "python_h2": (b"PUT", b"/h2", rb"h2\.test", b"a=1; b=2; c=3"),
}
each = pytest.mark.parametrize("name", SAID)
BY_HOST = selector(key=("host", "source"))
BY_COOKIE = selector(key=("header:cookie", "source"))


def sent(name: str) -> bytes:
    return (RECORDINGS / f"{name}.bin").read_bytes()


def limit_of(name: str) -> int:
    return 65535 if name == LARGE else LIMIT


def test_each_recording_is_looked_at() -> None:
    assert {file.stem for file in RECORDINGS.iterdir()} == SAID.keys()


@each
def test_what_a_client_asked(name: str) -> None:
    method, target, host, cookie = SAID[name]
    answer = selector().inspect(sent(name), limit_of(name), SOURCE)
    assert isinstance(answer, Selected)
    path = target.partition(b"?")[0]
    assert (answer.key, answer.http, answer.request[:3]) == (path, 2, (method, target, path))
    by_host = BY_HOST.inspect(sent(name), limit_of(name), SOURCE)
    assert isinstance(by_host, Selected)
    assert re.fullmatch(rb"\0\d+:" + host + rb",4:%b," % re.escape(SOURCE), by_host.key)
    by_cookie = BY_COOKIE.inspect(sent(name), limit_of(name), SOURCE)
    assert isinstance(by_cookie, Selected)
    expected = b"\0%d:%b,4:%b," % (len(cookie), cookie, SOURCE) if cookie else SOURCE
    assert by_cookie.key == expected


@each
def test_split_anywhere(name: str) -> None:
    """Two segments: the first is not enough until it holds the head, and then the same is said."""
    data, by = sent(name), selector()
    whole = by.inspect(data, limit_of(name), SOURCE)
    assert isinstance(whole, Selected)
    step = 97 if name == LARGE else 1
    for end in range(0, len(data), step):
        answer = by.inspect(data[:end], limit_of(name), SOURCE)
        if end >= whole.request.end:
            assert answer == whole
        else:
            assert isinstance(answer, NeedMore)
            assert answer.until <= whole.request.end
            assert not end or by.may_decide(data, end)


@each
def test_byte_by_byte_as_packets_are_looked_at(name: str) -> None:
    data, by = sent(name), selector()
    had, answer = 0, by.inspect(b"", limit_of(name), SOURCE)
    first = 18_000 if name == LARGE else 1
    for end in range(first, len(data) + 1):
        waits = isinstance(answer, NeedMore) and end >= answer.until
        if waits and (not had or by.may_decide(data[:end], had)):
            answer = by.inspect(data[:end], limit_of(name), SOURCE)
        had = end
    assert isinstance(answer, Selected)
    assert answer.request.target == SAID[name][1]


def test_a_head_longer_than_the_service_takes() -> None:
    """It is known before it is there."""
    assert selector().inspect(sent(LARGE)[:200], LIMIT, SOURCE) == Bad(Reason.HEAD_TOO_LONG)


# --- through the balancer ---


@pytest.mark.parametrize("name", [name for name in SAID if name != LARGE])
def test_a_client_goes_where_the_same_path_goes_in_http_1(name: str) -> None:
    """In one segment, which is handed over as it came; and in two, cut anywhere."""
    data, path = sent(name), SAID[name][1].partition(b"?")[0]
    stage = Stage()
    bridge = stage.bridge_of(selected(selector(), request(line=b"GET %b HTTP/1.1" % path)).key)
    verdict = Client(stage).connect().send(data, flags="PA")
    assert handoff_of(verdict)
    assert verdict is not None
    assert (fields(verdict)["dst"], fields(verdict)["payload"]) == (bridge, data)
    end = selected(selector(), data).request.end
    for cut in {1, 4, 12, 13, len(PREFACE), len(PREFACE) + 5, end - 1}:
        client = Client(stage, ("198.51.100.8", 1000 + cut)).connect()
        assert client.send(data[:cut]) is None
        assert not stage.sent(), "nothing is acknowledged yet"
        assert client.send(data[cut:], cut) is None
        first, second = stage.sent()
        assert handoff_of(first)
        assert fields(first)["payload"] + fields(second)["payload"] == data
        assert {fields(first)["dst"], fields(second)["dst"]} == {bridge}


def test_a_head_byte_by_byte_is_acknowledged_and_delivered() -> None:
    data, stage = sent("nghttp"), Stage()
    client = Client(stage).connect()
    end = selected(selector(), data).request.end
    for at in range(end):
        client.send(data[at : at + 1], at)
        stage.at(0.05 * (at + 1))
    assert stage.count("heads_owned") > 20
    handed = stage.sent()[-1]
    assert handoff_of(handed)
    assert fields(handed)["payload"] == data[:end]
