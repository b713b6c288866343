"""`explain` says of 10,000 requests where each goes; then each is made, packet by packet."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import pytest

from balancer.core import config
from balancer.core.catalogue import built, even
from balancer.core.engine import Balancer
from balancer.program.control import explain
from balancer.program.control.tables import explained
from common.adapters.control.server import CommandError
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from common.core.segment import ACK, PSH, SYN, build_along
from common.program.control.rendering import plain
from tests.unit import models
from tests.unit.balancer_stage import T0, WALL

REQUESTS = 10_000
VIP = "192.0.2.10"
KEYS: dict[str, dict[str, Any]] = {
    "maglev": {"key": ("path",)},
    "ring": {"policy": "ring", "key": ("uri",)},
    "rendezvous": {"policy": "rendezvous", "key": ("cookie:user",), "missing": ("source",)},
    "source": {"policy": "source"},
    "pending": {"policy": "least-pending"},
    "turns": {"policy": "round-robin", "key": ("header:x-shard", "host"), "missing": ("path",)},
    "bounded": {"policy": "maglev", "bounded_load": 1.25, "key": ("query:id",)},
}
PATHS = ("/a", "/img/x.png", "/img/%7Ey", "/api/v1?id=7", "/api/v2?id=&id=8", "/", "/deep/er?x=1")
HOSTS = ("example.com", "www.example.com", "Static.Example.com:80", "other.test")


def backends(pool: int) -> tuple[config.Backend, ...]:
    return tuple(config.Backend(f"b{n}", f"10.0.{pool}.{n}", weight=n) for n in range(1, 6))


def configuration() -> config.Config:
    pools = tuple(
        config.Pool(name, backends(number), table_size=251 if "maglev" in name else 0, **settings)
        for number, (name, settings) in enumerate(KEYS.items())
    )
    routes = (
        config.Route("ring", name="images", path_prefix="/img/"),
        config.Route("rendezvous", name="api", path_regex="/api/v[0-9]+"),
        config.Route("source", host=("*.example.com",), method=("POST",)),
        config.Route("pending", host=("other.test",), header=(("x-shard", "*"),)),
        config.Route("turns", header=(("x-shard", "*"),)),
        config.Route("bounded", port=8080),
    )
    services = (
        config.Service("web", VIP, 80, 1, "maglev"),
        config.Service("alt", VIP, 8080, 1, "maglev", bad_request="source-hash"),
    )
    return config.Config(services, routes, pools)


def balancer_of(chosen: config.Config) -> Balancer:
    keys = Keyring([derive(models.SHARED_KEY)])
    limits, times = config.Limits(), config.Timeouts()
    return Balancer(built(chosen, even(chosen), T0), limits, times, keys, Ledger(), T0, WALL - T0)


@pytest.fixture
def core() -> Balancer:
    return balancer_of(configuration())


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's time is the packets'."""
    monkeypatch.setattr("time.monotonic", lambda: T0)


def asked(dice: random.Random) -> dict[str, Any]:
    """A request, as `explain` is asked about it."""
    headers = [f"Host: {dice.choice(HOSTS)}"]
    if dice.random() < 0.3:
        headers.append(f"X-Shard: {dice.randrange(50)}")
    if dice.random() < 0.5:
        headers.append(f"Cookie: a=b; user={dice.randrange(1000)}")
    path = dice.choice((*PATHS, f"/{dice.randrange(1000)}"))
    return {
        "method": dice.choice(("GET", "POST", "HEAD")),
        "url": path,
        "headers": headers,
        "source": str(IPv4Address(0x0A090000 + dice.randrange(500))),
        "service": dice.choice(("web", "alt")),
    }


def goes_to(core: Balancer, request: Mapping[str, Any], port: int) -> str | None:
    """The bridge that a client's handoff leaves for; None where it is reset."""
    client, vip = IPv4Address(request["source"]).packed, IPv4Address(VIP).packed
    service = {"web": 80, "alt": 8080}[request["service"]]
    along = client + vip + port.to_bytes(2, "big") + service.to_bytes(2, "big")
    core.packet(build_along(along, SYN, seq=1), T0)
    ((_, syn_ack),) = core.out
    core.out.clear()
    b = int.from_bytes(syn_ack[24:28], "big")
    lines = [f"{request['method']} {request['url']} HTTP/1.1", *request["headers"], "", ""]
    head = "\r\n".join(lines).encode()
    segment = build_along(along, ACK | PSH, seq=2, ack=b + 1, payload=head)
    verdict = core.packet(segment, T0)
    core.out.clear()
    return None if verdict is None else str(IPv4Address(verdict[16:20]))


def test_ten_thousand_requests_go_where_explain_says(core: Balancer) -> None:
    ask = explain.commands(core)["explain"].run
    dice = random.Random(20170)
    pools: Counter[str] = Counter()
    core.pools["maglev"].mark_down(core.pools["maglev"].members[0], "checks failed", T0)
    core.pools["ring"].drain(core.pools["ring"].members[1])
    for number in range(REQUESTS):
        request = asked(dice)
        told = ask(request)
        where = goes_to(core, request, 1024 + number % 60000)
        pool = core.pools[told["pool"]]
        found = pool.find(told["backend"])
        assert found is not None
        assert where == found.bridge, (request, told)
        pools[told["pool"]] += 1
    assert pools.keys() == KEYS.keys(), "every policy had its share"
    assert min(pools.values()) > REQUESTS // 50


def test_what_cannot_be_read_goes_by_the_address_where_that_is_configured(core: Balancer) -> None:
    ask = explain.commands(core)["explain"].run
    request = {
        "method": "GET",
        "url": "/a",
        "source": "10.9.0.1",
        "headers": ["Host: a", "Host: b"],
    }
    alone = ask(request | {"service": "web"})
    assert alone == {"service": "web", "source": "10.9.0.1", "bad": "several_hosts"}
    told = ask(request | {"service": "alt"})
    assert told["bad"] == "several_hosts"
    found = core.pools[told["pool"]].find(told["backend"])
    assert found is not None
    assert goes_to(core, request | {"service": "alt"}, 4000) == found.bridge
    assert goes_to(core, request | {"service": "web"}, 4001) is None


def test_what_is_shown(core: Balancer) -> None:
    ask = explain.commands(core)["explain"].run
    pool = core.pools["ring"]
    pool.mark_down(pool.members[0], "no answer", T0)
    told = ask({"method": "GET", "url": f"http://{VIP}:80/img/a?b"})
    assert (told["service"], told["route"], told["key"]) == ("web", "images", "uri=/img/a?b")
    text = plain(*explained(told))
    for words in ("images", "ring (ring)", told["hash"], told["backend"], "b1 (no answer)"):
        assert words in text
    bad = ask({"method": "GET", "url": "/", "headers": ["Host: a", "Host: b"], "service": "web"})
    assert "the client is reset" in plain(*explained(bad))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"url": "/a b", "service": "web"}, "URL '/a b' is wrong"),
        ({"url": "/a"}, "which service is meant"),
        ({"url": "/a", "service": "x"}, "there is no service 'x'; right would be one of 'web'"),
        ({"url": "/a", "service": "web", "source": "me"}, "source: 'me' is wrong"),
        ({"url": "http://a:99999/", "service": None}, "the port of"),
    ],
)
def test_what_cannot_be_explained(core: Balancer, request_: dict[str, Any], error: str) -> None:
    with pytest.raises(CommandError, match=error):
        explain.commands(core)["explain"].run({"method": "GET", **request_})


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ({"method": "GET", "url": f"http://{VIP}:443/"}, "--service names --sni NAME"),
        ({"method": "GET", "url": "/", "service": "names"}, "--service names --sni NAME"),
        ({"method": "GET", "url": f"http://{VIP}:22/"}, f"tcp {VIP}:22"),
        ({"service": "ssh"}, f"tcp {VIP}:22"),
        ({"method": "GET", "url": f"http://{VIP}:53/"}, f"udp {VIP}:53"),
        ({"sni": "a.example", "service": "dns"}, f"udp {VIP}:53"),
        ({"sni": "a.example", "service": "web"}, "--service web METHOD URL"),
    ],
)
def test_no_other_service_answers_for_one_that_is_asked_otherwise(
    words: dict[str, Any], right: str
) -> None:
    services = (
        config.Service("web", VIP, 80, 1, backends=backends(1)),
        config.Service("names", VIP, 443, 1, inspect="tls", backends=backends(2)),
        config.Service("ssh", VIP, 22, 1, inspect="none", backends=backends(3)),
        config.Service("dns", VIP, 53, 1, protocol="udp", inspect="none", backends=backends(4)),
        config.Service("web-udp", VIP, 80, 1, protocol="udp", inspect="none", backends=backends(5)),
    )
    ask = explain.commands(balancer_of(config.Config(services)))["explain"].run
    with pytest.raises(CommandError) as error:
        ask(words)
    assert str(error.value).endswith(f"; right would be explain {right}")
    assert ask({"method": "GET", "url": f"http://{VIP}/"})["service"] == "web"


@pytest.mark.parametrize("key", [(), ("source",), ("source-port",)])
def test_of_what_is_not_read_by_the_source(key: tuple[str, ...]) -> None:
    """A hundred clients' SYNs go where it says."""
    pool = config.Pool("p", backends(1), key=key)
    services = (config.Service("ssh", VIP, 22, 1, "p", inspect="none"),)
    core = balancer_of(config.Config(services, (), (pool,)))
    ask = explain.commands(core)["explain"].run
    said = {}
    for port in range(2000, 2100):
        told = ask({"method": "tcp", "url": f"{VIP}:22", "source": f"198.51.100.7:{port}"})
        along = IPv4Address("198.51.100.7").packed + IPv4Address(VIP).packed
        verdict = core.packet(build_along(along + struct.pack("!HH", port, 22), SYN, seq=1), T0)
        assert verdict is not None
        found = core.pools["p"].find(told["backend"])
        assert found is not None
        assert str(IPv4Address(verdict[16:20])) == found.bridge
        said[told["key"]] = told["backend"]
    per_port = "source-port" in key
    assert len(set(said.values())) == (5 if per_port else 1)
    assert ("source=198.51.100.7 port=2000" in said) is per_port
    with pytest.raises(CommandError, match="there is no service with inspect = 'http'"):
        ask({"method": "GET", "url": f"http://{VIP}:22/"})


def test_tcp_is_for_what_is_not_read(core: Balancer) -> None:
    ask = explain.commands(core)["explain"].run
    with pytest.raises(CommandError, match=f"no service {VIP}:80 with inspect = 'none'"):
        ask({"method": "tcp", "url": f"{VIP}:80"})
