"""Routes and pools in the balancer's configuration: what they mean, and how mistakes are told."""

from __future__ import annotations

import pytest

from balancer.core import config
from balancer.core.config import Backend, Check, RateLimit
from common.core.settings import SettingsError

SERVICE = "[[services]]\nvip = '10.0.0.1'\nport = 80\ndscp = 1\npool = 'web'\n"
POOL = "[[pools]]\nname = 'web'\n"
BACKEND = "[[pools.backends]]\nbridge = '10.0.0.11'\n"
OTHER = "[[pools]]\nname = 'other'\n" + BACKEND.replace("11", "12")


def parsed(text: str) -> config.Config:
    return config.parse(text, "b.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(text)
    return caught.value.problems


def test_all_of_a_pool() -> None:
    text = (
        SERVICE
        + POOL
        + (
            "policy = 'ring'\nkey = ['host', 'query:id']\nmissing = 'source'\nbounded_load = 1.25\n"
            "points = 40\nslow_start = 30\non_down = 'reset'\nretries = 1\nsilence = 0.5\n"
            "[pools.check]\ninterval = 5\nfall = 2\n"
            "[pools.limit]\nrate = 10\nburst = 5\nover = 'reset'\n"
        )
        + BACKEND
    )
    (pool,) = parsed(text).pools
    assert pool.key == ("host", "query:id")
    assert (pool.policy, pool.bounded_load, pool.points, pool.silence) == ("ring", 1.25, 40, 0.5)
    assert pool.check == Check(interval=5.0, fall=2)
    assert pool.limit == RateLimit(rate=10.0, burst=5, over="reset")
    assert pool.backends == (Backend("10.0.0.11", "10.0.0.11"),)


def test_a_service_has_its_own_pool_and_those_of_its_routes() -> None:
    routes = "[[routes]]\npath_prefix = '/x/'\npool = 'other'\nport = 80\n"
    elsewhere = "[[routes]]\npool = 'third'\nport = 81\n"
    third = OTHER.replace("other", "third").replace("12", "13")
    alt = SERVICE.replace("port = 80", "port = 81")
    found = parsed(SERVICE + alt + routes + elsewhere + POOL + BACKEND + OTHER + third)
    service = found.services[0]
    assert [pool.name for pool in found.pools_of(service)] == ["other", "web"]
    assert [b.bridge for b in found.backends_of(service)] == ["10.0.0.12", "10.0.0.11"]


@pytest.mark.parametrize(
    ("more", "inspect", "natural"),
    [
        ("", "http", "path"),
        ("inspect = 'tls'\n", "tls", "sni"),
        ("inspect = 'none'\n", "none", "source"),
        ("protocol = 'udp'\n", "none", "source"),
    ],
)
def test_what_is_read_gives_the_key(more: str, inspect: str, natural: str) -> None:
    found = parsed(SERVICE.replace("pool = 'web'\n", more + "pool = 'web'\n") + POOL + BACKEND)
    (service,) = found.services
    assert (service.inspect, service.natural_key) == (inspect, (natural,))
    assert found.pools[0].key == ()


def test_udp_and_tcp_share_a_port() -> None:
    udp = SERVICE.replace("pool = 'web'", "pool = 'web'\nprotocol = 'udp'")
    found = parsed(SERVICE + udp + POOL + BACKEND)
    assert [s.name for s in found.services] == ["10.0.0.1:80", "10.0.0.1:80/udp"]
    with pytest.raises(SettingsError, match=r"port: 10\.0\.0\.1:80 is service"):
        parsed(udp + udp + POOL + BACKEND)


def test_a_route_is_a_services_that_reads_what_it_asks_for() -> None:
    tls = SERVICE.replace("port = 80", "port = 443\ninspect = 'tls'")
    ssh = SERVICE.replace("port = 80", "port = 22\ninspect = 'none'")
    routes = (
        "[[routes]]\nhost = 'a'\npool = 'other'\n[[routes]]\nalpn = 'h2'\npool = 'other'\n"
        "[[routes]]\npath_prefix = '/a'\npool = 'other'\n"
    )
    found = parsed(SERVICE + tls + ssh + routes + POOL + BACKEND + OTHER)
    http, tls_routes, none = (found.routes_of(service) for service in found.services)
    assert [bool(route.alpn) for route in http] == [False, False]
    assert [bool(route.alpn) for route in tls_routes] == [False, True]
    assert none == ()


TLS = SERVICE.replace("dscp", "inspect = 'tls'\ndscp")
NONE = SERVICE.replace("dscp", "inspect = 'none'\ndscp")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            TLS + POOL + "key = ['sni', 'path']\n" + BACKEND,
            "pools[0].key: 'path' is not to be had of service '10.0.0.1:80' (inspect = 'tls'); "
            "right would be sni or alpn or source",
        ),
        (
            NONE + POOL + "key = 'source-port'\nmissing = 'host'\n" + BACKEND,
            "pools[0].missing: 'host' is not to be had",
        ),
        (
            SERVICE + POOL + "key = 'sni'\n" + BACKEND,
            "pools[0].key: 'sni' is not to be had of service '10.0.0.1:80' (inspect = 'http'); "
            "right would be path or uri or host or source or query:NAME or header:NAME",
        ),
        (
            TLS + POOL + BACKEND + "[[routes]]\npool = 'web'\nservice = '10.0.0.1:80'\n"
            "method = 'GET'\n",
            "routes[0].method: is not to be had of service '10.0.0.1:80' (inspect = 'tls'); "
            "right would be host or alpn",
        ),
        (
            TLS + POOL + BACKEND + "[[routes]]\npool = 'web'\nmethod = 'GET'\n",
            "routes[0]: no service can take it; right would be a port that there is one at, which",
        ),
        (
            SERVICE + POOL + BACKEND + "[[routes]]\npool = 'web'\nport = 81\n",
            "routes[0]: no service can take it",
        ),
        (
            NONE + "max_head = 2048\n" + POOL + BACKEND,
            "services[0].max_head: is for services of which something is read; right would be none",
        ),
        (
            SERVICE + "protocol = 'udp'\nsack = false\n" + POOL + BACKEND,
            "services[0].sack: is for services of which something is read; right would be none",
        ),
        (
            NONE + POOL + BACKEND + "[[routes]]\npool = 'web'\nservice = '10.0.0.1:80'\n",
            "routes[0].service: '10.0.0.1:80' is wrong: of its clients nothing is read",
        ),
        (
            SERVICE + "protocol = 'udp'\ninspect = 'tls'\n" + POOL + BACKEND,
            "services[0].inspect: 'tls' is wrong with protocol 'udp'; right would be 'none'",
        ),
        (
            NONE + "bad_request = 'source-hash'\n" + POOL + BACKEND,
            "services[0].bad_request: 'source-hash' is wrong where no request is read",
        ),
        (SERVICE, "services[0].pool: there is no pool 'web'"),
        (SERVICE + POOL, "pools[0].backends: is missing"),
        (SERVICE + POOL + BACKEND + POOL + BACKEND, "pools[1].name: 'web' is taken by pools[0]"),
        (
            SERVICE + POOL + BACKEND + "[[routes]]\npool = 'x'\n",
            "routes[0].pool: there is no pool 'x'; right would be 'web'",
        ),
        (
            SERVICE + POOL + BACKEND + "[[routes]]\npool = 'web'\nservice = 'x'\n",
            "routes[0].service: there is no service 'x'; right would be '10.0.0.1:80'",
        ),
        (
            SERVICE
            + POOL
            + BACKEND
            + "[[routes]]\npool = 'web'\npath_prefix = '/a'\npath_regex = '/b'\n",
            "routes[0].path_regex: and path_prefix are both there",
        ),
        (
            SERVICE + POOL + "policy = 'round-robin'\nbounded_load = 1.5\n" + BACKEND,
            "pools[0].bounded_load: 1.5 is wrong with policy 'round-robin'; right would be 0, or ",
        ),
        (SERVICE + POOL + "bounded_load = 0.5\n" + BACKEND, "pools[0].bounded_load: 0.5 is wrong"),
        (
            SERVICE + POOL + "key = 'cookie'\n" + BACKEND,
            "pools[0].key: 'cookie' is wrong; right would be path, uri, host, source, query:NAME",
        ),
        (
            SERVICE + POOL + "table_size = 65536\n" + BACKEND,
            "pools[0].table_size: 65536 is wrong; right would be a prime",
        ),
        (SERVICE + POOL + BACKEND.replace("11", "1"), "pools[0].backends[0].bridge: 10.0.0.1 is"),
        (
            SERVICE + POOL + BACKEND + "[pools.check]\nintervall = 3\n",
            "pools[0].check.intervall: no such key; did you mean 'interval'?",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"b.toml: {problem}")


def test_all_mistakes_are_told_at_once() -> None:
    text = (
        SERVICE.replace("80", "0")
        + POOL
        + "retries = -1\npolicy = 'best'\n"
        + BACKEND.replace("10.0.0.11", "x")
        + "[[routes]]\nhost = 'a b'\npool = 3\n"
    )
    found = [problem.split(":")[1].strip() for problem in problems(text)]
    assert found == [
        "services[0].port",
        "routes[0].pool",
        "routes[0].host",
        "pools[0].backends[0].bridge",
        "pools[0].policy",
        "pools[0].retries",
    ]
