"""Requests made from METHOD, URL and headers, read by what reads clients' ones; and curl's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.request.selector import Selected
from balancer.core.request.synthetic import UnsendableError, request_bytes
from balancer.core.request.verdict import Bad
from tests.unit.request_selectors import LIMIT, SOURCE, selected, selector


@pytest.mark.parametrize(
    ("method", "url", "headers", "sent"),
    [
        ("GET", "/a?b", [], b"GET /a?b HTTP/1.1\r\n\r\n"),
        ("GET", "http://h:80/a?b#c", [], b"GET /a?b HTTP/1.1\r\nHost: h:80\r\n\r\n"),
        ("GET", "HTTP://h", [], b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("GET", "http://h?b", [], b"GET /?b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("PUT", "/a", ["Host: h", "X-A:b "], b"PUT /a HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\r\n"),
        ("GET", "http://h/", ["host: other"], b"GET / HTTP/1.1\r\nhost: other\r\n\r\n"),
        ("GET", "/", ["X:"], b"GET / HTTP/1.1\r\nX: \r\n\r\n"),
        ("GET", "/?u=http://h/", [], b"GET /?u=http://h/ HTTP/1.1\r\n\r\n"),
        ("OPTIONS", "*", [], b"OPTIONS * HTTP/1.1\r\n\r\n"),
        ("CONNECT", "h:443", [], b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
    ],
)
def test_what_is_sent(method: str, url: str, headers: list[str], sent: bytes) -> None:
    assert request_bytes(method, url, headers) == sent


@pytest.mark.parametrize(
    ("method", "url", "header", "words"),
    [
        ("G T", "/", "A: b", "method 'G T' is wrong; right would be one such as GET"),
        ("", "/", "A: b", "method '' is wrong"),
        ("M" * 33, "/", "A: b", "is wrong"),
        ("GET", "", "A: b", "URL '' is wrong"),
        ("GET", "/a b", "A: b", "right would be visible ASCII, all else as %XX"),
        ("GET", "/ä", "A: b", "right would be visible ASCII, all else as %XX"),
        ("GET", "/\r\n", "A: b", "right would be visible ASCII, all else as %XX"),
        ("GET", "https://h/", "A: b", "right would be http://HOST/PATH or /PATH"),
        ("GET", "h/a", "A: b", "right would be http://HOST/PATH or /PATH"),
        ("GET", "http://", "A: b", "right would be http://HOST/PATH or /PATH"),
        ("GET", "/", "A", "header 'A' is wrong; right would be NAME: VALUE"),
        ("GET", "/", "A b: c", "header 'A b: c' is wrong"),
        ("GET", "/", "A: b\r\nC: d", "is wrong; right would be NAME: VALUE"),
        ("GET", "/", "A: b\n", "is wrong; right would be NAME: VALUE"),
        ("GET", "/", ": b", "is wrong; right would be NAME: VALUE"),
    ],
)
def test_what_cannot_be_sent(method: str, url: str, header: str, words: str) -> None:
    with pytest.raises(UnsendableError) as caught:
        request_bytes(method, url, [header])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


texts = st.text("GET/*?#:.&= ahtp\r\nä[]@1", max_size=12)


@given(texts, texts, st.lists(texts, max_size=2))
def test_what_is_sent_is_read(method: str, url: str, headers: list[str]) -> None:
    """Each of them is one whole head, though its host may be a bad one."""
    try:
        sent = request_bytes(method or "GET", url, headers)
    except UnsendableError:
        return
    assert sent.index(b"\r\n\r\n") == len(sent) - 4
    assert isinstance(selector().inspect(sent, LIMIT, SOURCE), Selected)
    assert isinstance(selector(key="host").inspect(sent, LIMIT, SOURCE), (Selected, Bad))


def test_a_host_in_the_url_is_the_request_s() -> None:
    sent = request_bytes("GET", "http://WWW.example.com:80/a")
    assert selected(selector(key="host"), sent).key == b"www.example.com"
