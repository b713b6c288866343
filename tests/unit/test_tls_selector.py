"""A service of TLS: where its connections go, and what its clients are told; through the core."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.core.config import Pool, RateLimit, Route
from balancer.core.request.tls.selector import TlsSelector
from balancer.core.request.verdict import Bad, NeedMore, Reason
from tests.hellos.recorded import HELLOS
from tests.unit import models, tls_model
from tests.unit.balancer_stage import BRIDGES, REQUEST, Client, Stage
from tests.unit.request_selectors import BACKENDS, LIMIT, SOURCE, reason, selected
from tests.unit.scapy_oracle import fields
from tests.unit.tls_model import Hello, alpn, records, sni


def selector(*routes: Route, default: str | None = "p", **settings: object) -> TlsSelector:
    """Of a service with these routes; all its pools have these settings."""
    names = dict.fromkeys([route.pool for route in routes] + ([default] if default else []))
    pools = [Pool(name, BACKENDS, **settings) for name in names]  # type: ignore[arg-type]
    return TlsSelector(routes, pools, default)


def hello(name: bytes = b"", *protocols: bytes) -> bytes:
    said = ([sni(name)] if name else []) + ([alpn(*protocols)] if protocols else [])
    return bytes(Hello(said))


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "data", "value", "missing"),
    [
        ((), hello(b"A.Example."), b"a.example", ()),
        (("sni",), hello(b"a.example", b"h2"), b"a.example", ()),
        (("sni",), hello(b"", b"h2"), SOURCE, ("sni",)),
        (("alpn",), hello(b"a", b"h2", b"http/1.1"), b"h2,http/1.1", ()),
        (("alpn",), hello(b"a", b"\x0a\x0a", b"h2"), b"h2", ()),
        (("alpn",), hello(b"a"), SOURCE, ("alpn",)),
        (("source",), hello(b"a"), SOURCE, ()),
        (("sni", "alpn"), hello(b"a", b"h2"), b"\x001:a,2:h2,", ()),
        (("sni", "alpn"), hello(b"a"), SOURCE, ("alpn",)),
    ],
)
def test_keys(key: tuple[str, ...], data: bytes, value: bytes, missing: tuple[str, ...]) -> None:
    found = selected(selector(key=key), data)
    assert (found.pool, found.key, found.missing) == ("p", value, missing)


def test_what_is_said_of_it() -> None:
    found = selected(selector(), HELLOS["firefox"])
    assert (found.request.method, found.request.target) == (b"TLS", b"a.example")
    assert selected(selector(), hello()).request.target == b""
    instead = selected(selector(missing=("alpn",)), hello(b"", b"h2"))
    assert (instead.key, instead.parts, instead.missing) == (b"h2", ("alpn",), ("sni",))


# --- routes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ((b"a.example",), "a"),
        ((b"A.EXAMPLE.",), "a"),
        ((b"b.example",), "p"),
        ((b"x.b.example",), "b"),
        ((b"x.y.b.example", b"h2"), "b"),
        ((b"c.example", b"http/1.1", b"acme-tls/1"), "acme"),
        ((b"c.example", b"h2"), "p"),
        ((b"c.example",), "p"),
        ((b"",), "p"),
        ((b"", b"acme-tls/1"), "acme"),
        ((b"d.example", b"h2"), "d"),
        ((b"d.example", b"http/1.1"), "p"),
    ],
)
def test_routes_by_name_and_protocol(said: tuple[bytes, ...], where: str) -> None:
    by = selector(
        Route("a", host=("a.example",)),
        Route("b", host=("*.b.example",)),
        Route("acme", alpn=("acme-tls/1",)),
        Route("d", host=("d.example",), alpn=("h2", "h3")),
    )
    assert selected(by, hello(*said)).pool == where


def test_the_first_route_counts_and_has_a_name() -> None:
    one, two = Route("one", host=("a",)), Route("two", alpn=("h2", "x"))
    found = selected(selector(one, two), hello(b"a", b"h2"))
    assert (found.pool, found.route) == ("one", "a")
    found = selected(selector(two, one), hello(b"a", b"h2"))
    assert (found.pool, found.route) == ("two", "alpn=h2,x")


def test_what_no_route_takes() -> None:
    by = selector(Route("one", host=("a",)), default=None)
    assert reason(by, hello(b"b")) is Reason.NO_ROUTE  # type: ignore[arg-type]
    assert reason(by, hello()) is Reason.NO_ROUTE  # type: ignore[arg-type]


def test_a_hello_is_awaited() -> None:
    data = HELLOS["chromium"]
    assert selector().inspect(data[:1400], LIMIT, SOURCE) == NeedMore(len(data))
    assert selector().inspect(b"GET / HTTP/1.1\r\n", LIMIT, SOURCE) == Bad(Reason.PLAIN_HTTP)


# --- in the core ----------------------------------------------------------------------------------

NAMES = [b"%d.example" % number for number in range(12)]


def place(stage: Stage, data: bytes, port: int, size: int = 1440) -> str:
    """The bridge that a client's hello goes to, in segments of so many bytes."""
    client = Client(stage, ("198.51.100.7", port)).connect()
    verdicts = [client.send(data[at : at + size], at) for at in range(0, len(data), size)]
    sent = [fields(packet) for packet in stage.sent()]
    to_bridge = [each for each in sent if each["dst"] in BRIDGES]
    to_bridge += [fields(verdict) for verdict in verdicts if verdict is not None]
    assert len({each["dst"] for each in to_bridge}) == 1
    assert b"".join(each["payload"] for each in to_bridge)[: len(data)] == data
    return str(to_bridge[0]["dst"])


def test_a_name_keeps_its_bridge_however_it_comes() -> None:
    stage = Stage(inspect="tls")
    found = {}
    for turn, data in enumerate(hello(name) for name in NAMES):
        where = {place(stage, data, 1000 + turn), place(stage, data, 2000 + turn, 60)}
        where.add(place(stage, records(Hello([sni(NAMES[turn])]).message(), [50]), 3000 + turn, 7))
        assert where == {stage.bridge_of(NAMES[turn])}
        found[turn] = where.pop()
    assert set(found.values()) == set(BRIDGES)


def test_a_hello_of_two_segments_goes_on_as_the_client_sent_it() -> None:
    stage = Stage(inspect="tls")
    client, data = Client(stage).connect(), HELLOS["firefox"]
    assert client.send(data[:1440]) is None
    assert not stage.sent()
    assert client.send(data[1440:], 1440) is None
    packets = [fields(packet) for packet in stage.sent()]
    assert [each["payload"] for each in packets] == [data[:1440], data[1440:]]
    assert packets[0]["raw_options"][:16] == client.option(models.HANDOFF, seq=client.c + 1)
    assert {each["dst"] for each in packets} == {stage.bridge_of(b"a.example")}
    assert stage.count("heads_owned") == 0


def test_a_dribbled_hello_is_looked_at_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it can be whole, and not at each byte; nor where each byte is a record."""
    looked = []
    real = TlsSelector.inspect

    def counting(self: TlsSelector, data: bytes, limit: int, source: bytes) -> object:
        looked.append(len(data))
        return real(self, data, limit, source)

    monkeypatch.setattr(TlsSelector, "inspect", counting)
    data = hello(b"a")
    place(Stage(inspect="tls"), data, 1000, 1)
    assert looked == [1, 2, 3, 4, 5, 9, len(data)]
    looked.clear()
    message = tls_model.contents(data)
    place(Stage(inspect="tls"), records(message, range(len(message))), 1000, 1)
    assert len(looked) < 60


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "plain_http"),
        (b"\x15\3\1\0\2\2\x28", "tls_alert"),
        (b"\x80\x2e\1\3\1", "sslv2_hello"),
        (hello(b"192.0.2.1"), "bad_server_name"),
        (bytes(Hello([sni(b"a"), sni(b"b")])), "repeated_extension"),
        (b"\x16\3\1\x40\0\1\0\x3f\xfc", "head_too_long"),
    ],
)
def test_what_is_refused_is_reset_and_counted(data: bytes, why: str) -> None:
    stage = Stage(inspect="tls")
    client = Client(stage).connect()
    assert client.send(data) is None
    answer = stage.reply()
    assert "R" in answer["flags"]
    assert answer["payload"] == b""
    assert stage.count(why) == 1
    by_source = Stage(inspect="tls", bad_request="source-hash")
    verdict = Client(by_source).connect().send(data)
    assert verdict is not None
    assert fields(verdict)["dst"] == by_source.bridge_of(bytes((198, 51, 100, 7)))
    assert by_source.count("source_hashed") == 1


def test_a_hello_that_never_ends() -> None:
    stage = Stage(inspect="tls", max_head=2048)
    client = Client(stage).connect()
    data = records(Hello([tls_model.extension(21, bytes(1900))]).message(), range(1, 1900, 5))
    for at in range(0, 3000, 500):
        client.send(data[at : at + 500], at)
    assert stage.count("head_too_long") == 1
    assert "R" in fields(stage.sent()[-1])["flags"]
    silent = Stage(inspect="tls", timeouts={"request": 5.0})
    Client(silent).connect().send(HELLOS["firefox"][:1000])
    silent.at(6)
    assert silent.count("request_timeout") == 1


def test_nobody_speaks_http_to_a_client_of_tls() -> None:
    """Neither where nobody can serve it, nor over a limit: both are resets."""
    stage = Stage(inspect="tls")
    pool = stage.core.pools["p"]
    for member in pool.members:
        pool.mark_down(member, "checks failed", stage.now)
    Client(stage).connect().send(HELLOS["curl"])
    assert stage.reply()["flags"] in ("R", "RA")
    assert (stage.count("not_served"), stage.count("replied_503")) == (1, 0)
    for over in ("429", "reset"):
        limited = Stage(inspect="tls", pool={"limit": RateLimit(rate=0.01, burst=1, over=over)})
        assert Client(limited).connect().send(HELLOS["curl"]) is not None
        Client(limited, ("198.51.100.7", 5)).connect().send(HELLOS["curl"])
        assert limited.reply()["flags"] in ("R", "RA")
        assert (limited.count("over_rate_limit"), limited.count("replied_429")) == (1, 0)


def test_the_access_log_names_the_server() -> None:
    stage = Stage(inspect="tls")
    stage.core.access.wanted = True
    client = Client(stage).connect()
    client.send(HELLOS["chromium"][:1440])
    client.send(HELLOS["chromium"][1440:], 1440)
    stage.core.packet(client.answer(models.ENDED), stage.now)
    stage.at(100)
    (record,) = stage.core.access.take(10)
    told = {name: record[name] for name in ("method", "target", "pool", "key")}
    assert record["http"] is None
    assert told == {"method": "TLS", "target": "a.example", "pool": "p", "key": "sni=a.example"}


def test_the_access_log_names_a_server_that_no_route_leads_to() -> None:
    stage = Stage(inspect="tls", routes=(Route("p", host=("b.example",)),))
    (service,) = stage.whole.services
    whole = replace(stage.whole, services=(replace(service, pool=None),))
    stage.core.reconfigure(whole, stage.paths, stage.now, lambda _: None)
    stage.at(1)
    stage.core.access.wanted = True
    Client(stage).connect().send(HELLOS["curl"])
    (record,) = stage.core.access.take(10)
    told = (record["why"], record["method"], record["target"], record["http"], record["pool"])
    assert told == ("no_route", "TLS", "a.example", None, "")


def test_http_services_are_as_before() -> None:
    stage = Stage()
    assert Client(stage).connect().send(REQUEST) is not None
    Client(stage, ("198.51.100.7", 5)).connect().send(HELLOS["curl"])
    assert stage.count("tls_hello") == 1
