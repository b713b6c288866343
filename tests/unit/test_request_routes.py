"""Routes: cases of each condition, their order, and a list that is looked through as a model."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.config import Route
from balancer.core.request import path_regex
from balancer.core.request.verdict import Bad, Reason
from common.core.settings import SettingsError
from tests.unit.request_selectors import LIMIT, SOURCE, reason, request, selected, selector


def met(data: bytes, **conditions: Any) -> bool:
    """Whether a request meets a route with these conditions."""
    by = selector(Route("routed", **conditions), default="other")
    return selected(by, data).pool == "routed"


@pytest.mark.parametrize(
    ("host", "field", "meets"),
    [
        ("www.example.com", b"www.example.com", True),
        ("www.example.com", b"WWW.EXAMPLE.COM:8080", True),
        ("WWW.example.com", b"www.example.com.", True),
        ("www.example.com", b"example.com", False),
        ("example.com", b"www.example.com", False),
        ("www.example.com", b"www.example.com.evil", False),
        ("*.example.com", b"www.example.com", True),
        ("*.example.com", b"a.b.example.com:80", True),
        ("*.example.com", b"example.com", False),  # as in nginx, where that is ".example.com"
        ("*.example.com", b"notexample.com", False),
        ("*.example.com", b"www.example.com.evil", False),
        (["a.example", "*.b.example"], b"x.b.example", True),
        (["a.example", "*.b.example"], b"b.example", False),
        ("192.0.2.1", b"192.0.2.1", True),
    ],
)
def test_host(host: object, field: bytes, meets: bool) -> None:
    data = request(b"Host: " + field)
    assert met(data, host=host) == meets
    assert met(data, host=host, path_regex="/a") == meets
    assert met(data, host=host, path_prefix="/a") == meets
    assert not met(data, host=host, path_prefix="/b")
    assert not met(data, host=host, path_regex="/b")


def test_no_host_meets_no_route_of_a_host() -> None:
    assert not met(request(), host="*.example.com")
    assert not met(request(b"Host:"), host="a.example")


@pytest.mark.parametrize(
    ("prefix", "target", "meets"),
    [
        ("/", b"/a", True),
        ("/images", b"/images", True),
        ("/images", b"/imagesque", True),
        ("/images/", b"/images", False),
        ("/images/", b"/images/a?b", True),
        ("/images/", b"/Images/a", False),
        ("/images/", b"/x/../images/a", False),  # nothing is resolved
        ("/images/", b"/%69mages/a", False),  # nor decoded
        ("/images/", b"/?/images/", False),
        ("/images/", b"http://h/images/a", True),
        ("/", b"http://h", True),
        ("/", b"*", False),
    ],
)
def test_path_prefix(prefix: str, target: bytes, meets: bool) -> None:
    line = b"OPTIONS %b HTTP/1.1" % target
    assert met(request(line=line), path_prefix=prefix) == meets
    assert met(request(line=line), path_regex=re.escape(prefix)) == meets


@pytest.mark.parametrize(
    ("regex", "target", "meets"),
    [
        (r"/[0-9]+", b"/42/a", True),  # from the beginning on, not always to the end
        (r"/[0-9]+$", b"/42/a", False),
        (r"/[0-9]+$", b"/42?a", True),
        (r"[0-9]+", b"/42", False),
        (r".*\.jpe?g$", b"/a/b.jpeg", True),
        (r"/(?i:images)/", b"/IMAGES/a", True),
        (r"/a|/b", b"/b", True),
        (r"", b"/", True),
    ],
)
def test_path_regex(regex: str, target: bytes, meets: bool) -> None:
    assert met(request(line=b"GET %b HTTP/1.1" % target), path_regex=regex) == meets


@pytest.mark.parametrize(
    ("method", "used", "meets"),
    [
        ("GET", b"GET", True),
        ("GET", b"get", False),  # RFC 9110 section 9.1: case-sensitive
        (["GET", "HEAD"], b"HEAD", True),
        (["GET", "HEAD"], b"POST", False),
    ],
)
def test_method(method: object, used: bytes, meets: bool) -> None:
    assert met(request(line=used + b" / HTTP/1.1"), method=method) == meets


@pytest.mark.parametrize(
    ("header", "fields", "meets"),
    [
        ({"X-Test": "yes"}, [b"x-test: yes"], True),
        ({"X-Test": "yes"}, [b"X-Test: Yes"], False),
        ({"X-Test": "yes"}, [b"X-Test: yes, yes"], False),
        ({"X-Test": "a, b"}, [b"X-Test: a", b"X-Test: b"], True),
        ({"X-Test": "yes"}, [], False),
        ({"X-Test": "*"}, [b"X-Test: whatever"], True),
        ({"X-Test": "*"}, [b"X-Test:"], True),
        ({"X-Test": "*"}, [], False),
        ({"X-Test": ""}, [b"X-Test:"], True),
        ({"X-Test": ""}, [], False),
        ({"A": "1", "B": "*"}, [b"B: 2", b"A: 1"], True),
        ({"A": "1", "B": "*"}, [b"A: 1"], False),
        ({"A": "1", "B": "2"}, [b"A: 1", b"B: 1"], False),
    ],
)
def test_header(header: dict[str, str], fields: list[bytes], meets: bool) -> None:
    assert met(request(*fields), header=header) == meets
    assert met(request(*fields), header=header, path_regex="/") == meets


def test_the_first_route_that_is_met_is_taken() -> None:
    first, second = Route("one", path_prefix="/a"), Route("two", path_prefix="/a/b")
    data = request(line=b"GET /a/b/c HTTP/1.1")
    assert selected(selector(first, second), data).pool == "one"
    assert selected(selector(second, first), data).pool == "two"


def test_the_service_s_own_pool_serves_the_rest() -> None:
    by = selector(Route("one", path_prefix="/images/"))
    found = selected(by, request())
    assert (found.pool, found.route) == ("p", "")


def test_without_one_the_rest_is_bad() -> None:
    by = selector(Route("one", path_prefix="/images/"), default=None)
    assert reason(by, request()) is Reason.NO_ROUTE
    assert by.inspect(b"GET /a HTTP/1.1\r", LIMIT, SOURCE) != Bad(Reason.NO_ROUTE)


def test_a_route_s_name_is_its_own_or_says_what_it_asks_for() -> None:
    named = selector(Route("one", name="all of them"))
    assert selected(named, request()).route == "all of them"
    asking = Route(
        "one", host="*.example.com", path_prefix="/a", method=("GET", "HEAD"), header={"X-A": "*"}
    )
    data = request(b"Host: b.example.com", b"X-A: 1")
    assert selected(selector(asking), data).route == "GET,HEAD *.example.com/a x-a=*"
    assert selected(selector(Route("one", path_regex="/.*a")), request()).route == "~/.*a"
    assert selected(selector(Route("one")), request()).route == "any"
    many = Route("one", host=[f"host-{n}.example" for n in range(20)])
    name = selected(selector(many), request(b"Host: host-7.example")).route
    assert len(name) == 64 and name.endswith("...")


# --- against a model ------------------------------------------------------------------------------

routes = st.lists(
    st.builds(
        Route,
        st.sampled_from(["one", "two", "three"]),
        host=st.sampled_from([(), (), "a.b", "*.b", ("c", "*.a.b"), ("*.c", "b")]),
        path_prefix=st.sampled_from([None, None, "/", "/a", "/ab", "/a/b"]),
        method=st.sampled_from([(), (), "GET", ("GET", "PUT")]),
        header=st.sampled_from([(), (), {"x": "1"}, {"x": "*"}, {"x": "2", "y": "1"}]),
    )
    | st.builds(
        Route,
        st.sampled_from(["one", "two", "three"]),
        host=st.sampled_from([(), "a.b", "*.b"]),
        path_regex=st.sampled_from(["/a", ".*b$", "/[ab]+/"]),
        header=st.sampled_from([(), {"x": "1"}]),
    ),
    max_size=6,
)
hosts = st.sampled_from([None, "a.b", "b", "c", "x.c", "a.a.b", "aXb"])
fields = st.sampled_from([{}, {"x": "1"}, {"x": "2"}, {"x": "2", "y": "1"}, {"y": "2"}])
paths = st.sampled_from(["/", "/a", "/ab", "/a/b", "/b", "/ab/c", "/c"])


def naive(
    listed: list[Route], method: str, path: str, host: str | None, has: dict[str, str]
) -> Route | None:
    """One route after the other, each condition by itself."""
    for route in listed:
        if route.host and not any(_is_host(pattern, host) for pattern in route.host):
            continue
        if route.path_prefix is not None and not path.startswith(route.path_prefix):
            continue
        if route.path_regex is not None and not re.match(route.path_regex, path):
            continue
        if route.method and method not in route.method:
            continue
        if all(name in has and value in ("*", has[name]) for name, value in route.header):
            return route
    return None


def _is_host(pattern: str, host: str | None) -> bool:
    if host is None:
        return False
    return host.endswith(pattern[1:]) if pattern.startswith("*") else host == pattern


@given(routes, st.sampled_from(["GET", "PUT", "POST"]), paths, hosts, fields)
def test_the_same_route_as_one_after_the_other(
    listed: list[Route], method: str, path: str, host: str | None, has: dict[str, str]
) -> None:
    numbered = [Route(**_settings(route) | {"name": str(n)}) for n, route in enumerate(listed)]
    lines = [f"{name}: {value}".encode() for name, value in has.items()]
    if host is not None:
        lines.append(f"Host: {host}".encode())
    data = request(*lines, line=f"{method} {path} HTTP/1.1".encode())
    found = selected(selector(*numbered), data)
    wanted = naive(numbered, method, path, host, has)
    assert (found.route, found.pool) == ((wanted.name, wanted.pool) if wanted else ("", "p"))


def _settings(route: Route) -> dict[str, Any]:
    return {name: getattr(route, name) for name in Route.__dataclass_fields__}


# --- how long it takes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regex",
    [
        r"(a",
        r"\1(a)",
        r"/(?=a)",
        r"/(?<!a)b",
        r"a{1001}",
        r"/(a{30}){30}",
        "/ä",
        7,
        r"/(ab|cd){160}$",
    ],
)
def test_an_expression_that_is_refused(regex: object) -> None:
    """RE2 has nothing whose time a path can make long, and what is left must not be large."""
    with pytest.raises(SettingsError, match=r"^path_regex: .* is wrong; right would be a regular"):
        Route("one", path_regex=regex)


@pytest.mark.parametrize("regex", [r"(/a*)*b", r"(/|a|aa)+$", r"/(.*a)*.*a.*a.*a.*b", r"(.*)*x"])
def test_expressions_that_take_for_ever_elsewhere(regex: str) -> None:
    """With Python's own, some of these would take years."""
    by = selector(Route("one", path_regex=regex))
    data = request(line=b"GET /" + b"a" * (path_regex.LONGEST_PATH - 1) + b" HTTP/1.1")
    begun = time.thread_time()
    selected(by, data)
    assert time.thread_time() - begun < 0.25


def test_a_path_too_long_for_an_expression_meets_none() -> None:
    by = selector(Route("one", path_regex="/a+"))
    for size, pool in ((path_regex.LONGEST_PATH, "one"), (path_regex.LONGEST_PATH + 1, "p")):
        line = b"GET /" + b"a" * (size - 1) + b"?" + b"b" * 99 + b" HTTP/1.1"
        assert selected(by, request(line=line)).pool == pool


def test_the_expressions_largest_size_is_enough_for_a_thousand() -> None:
    """Each as large as is allowed: the set of them can be made, and matched."""
    expressions = [rf"/{n}/(ab|cd){{80}}$" for n in range(1000)]
    for text in expressions:
        path_regex.check(text)
    with pytest.raises(ValueError, match="too large"):
        path_regex.check(r"/(ab|cd){160}$")
    together = path_regex.PathRegexes(expressions)
    assert together.matching(b"/999/" + b"abcd" * 40) == [999]


@pytest.mark.parametrize(
    "conditions",
    [
        lambda n: {"path_prefix": f"/{n}/"},
        lambda n: {"path_regex": rf"/{n}/.*\.jpg$"},
        lambda n: {"host": f"{n}.example"},
        lambda n: {"host": f"*.{n}.example"},
        lambda n: {"header": {"x": str(n)}},
        lambda n: {"host": "h", "path_prefix": f"/{n}/"},
    ],
    ids=["prefix", "regex", "host", "suffix", "header", "host and prefix"],
)
def test_a_thousand_routes_are_not_looked_through(conditions: Any) -> None:
    """They take no more than a few times as long as three; one after the other, a hundred times."""
    data = request(b"Host: h", b"X: y", line=b"GET /x/y HTTP/1.1")

    def best(count: int) -> float:
        by = selector(*[Route("one", **conditions(n)) for n in range(count)])
        times = []
        for _ in range(20):
            begun = time.thread_time_ns()
            for _ in range(20):
                by.inspect(data, LIMIT, SOURCE)
            times.append(time.thread_time_ns() - begun)
        return min(times)

    assert best(1000) < 10 * best(3)


def test_a_host_of_many_labels_takes_no_long_time() -> None:
    by = selector(Route("one", host="*.example"))
    assert reason(by, request(b"Host: " + b"a." * 4000 + b"example")) is Reason.BAD_HOST
    assert selected(by, request(b"Host: " + b"a." * 120 + b"example")).pool == "one"
