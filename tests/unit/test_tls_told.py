"""What is told of TLS services: by `explain`, which asks the very selector, and by `decode`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancer.core.config import Route
from balancer.core.engine import Balancer
from balancer.program.control import explain
from common.adapters.control.server import CommandError
from tests.hellos.recorded import HELLOS
from tests.unit.balancer_stage import T0, Client, Stage
from tests.unit.scapy_oracle import fields, tcp_packet
from tests.unit.test_decode import CLIENT, CONFIG, VIP, B, C, connection, told, write
from tests.unit.tls_model import Hello, alpn, sni


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's time is the packets'."""
    monkeypatch.setattr("time.monotonic", lambda: T0)


def ask(core: Balancer, **words: Any) -> dict[str, Any]:
    found: dict[str, Any] = explain.commands(core)["explain"].run(words)
    return found


def test_hellos_go_where_explain_says() -> None:
    stage = Stage(inspect="tls", pool={"key": ("sni", "alpn"), "missing": ("sni",)})
    dice = random.Random(44)
    for port in range(80):
        name = dice.choice((f"{dice.randrange(30)}.example", "X.Example.", ""))
        offered = dice.choice(([], ["h2"], ["h2", "http/1.1"]))
        asked = ask(stage.core, sni=name, alpn=offered, source="198.51.100.7", service="s")
        said = [sni(name.encode())] if name else []
        said += [alpn(*(each.encode() for each in offered))] if offered else []
        verdict = Client(stage, ("198.51.100.7", 1000 + port)).connect().send(bytes(Hello(said)))
        member = stage.core.pools["p"].find(asked["backend"])
        assert member is not None
        assert verdict is not None
        assert fields(verdict)["dst"] == member.bridge


def test_what_explain_says() -> None:
    routes = (Route("p", name="web", host=("*.example",), alpn=("h2",)),)
    stage = Stage(inspect="tls", routes=routes)
    found = ask(stage.core, sni="A.example", alpn=["h2"])
    assert (found["route"], found["key"], found["pool"]) == ("web", "sni=a.example", "p")
    assert ask(stage.core, service="s")["missing"] == ["sni"]
    assert ask(stage.core, sni="192.0.2.1")["bad"] == "bad_server_name"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"method": "GET", "url": "/a"}, "no service with inspect = 'http'"),
        ({"method": "GET", "url": "/a", "sni": "a"}, "--sni and --alpn are for TLS"),
        ({"sni": "bücher.example"}, "server name 'bücher.example' is wrong; right would be ASCII"),
        ({"sni": "a", "alpn": [""]}, "protocol '' is wrong"),
        ({"sni": "a", "source": "b"}, "source: 'b' is wrong"),
        ({"sni": "a", "service": "t"}, "no service 't'; right would be one of 's'"),
    ],
)
def test_what_cannot_be_explained(words: dict[str, Any], error: str) -> None:
    with pytest.raises(CommandError, match=error):
        ask(Stage(inspect="tls").core, **words)


def test_of_a_service_of_http_nobody_asks_for_a_name() -> None:
    with pytest.raises(CommandError, match="no service with inspect = 'tls'"):
        ask(Stage().core, sni="a")
    with pytest.raises(CommandError, match="method '' is wrong"):
        ask(Stage().core)


# --- decode ---------------------------------------------------------------------------------------

TLS = replace(CONFIG, services=tuple(replace(each, inspect="tls") for each in CONFIG.services))


def decoded(tmp_path: Path, *pieces: tuple[int, bytes]) -> list[str]:
    """The words at the end of the lines of a client's segments, and the summary."""
    packets: list[Any] = [connection()[0]]
    for at, data in pieces:
        packets.append(tcp_packet(CLIENT, VIP, seq=C + 1 + at, ack=B + 1, payload=data))
    lines = told(write(tmp_path / "tls.pcap", packets), TLS)
    return [line.partition("win=8192")[2].strip() for line in lines[2 : 2 + len(pieces)]] + [
        line for line in lines if "summary" in line
    ]


def test_decode_shows_the_name(tmp_path: Path) -> None:
    data = HELLOS["chromium"]
    *words, summary = decoded(
        tmp_path, (0, data[:1000]), (500, data[500:1500]), (1500, data[1500:]), (0, data[:1000])
    )
    said = "TLS a.example h2,http/1.1"
    assert words == ["incomplete ClientHello", "incomplete ClientHello", said, said]
    assert f"; request {said};" in summary


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HELLOS["gnutls-no-sni"], "TLS without a name"),
        (HELLOS["openssl-dot"], "TLS a.example"),
        (b"GET / HTTP/1.1\r\n", "no TLS (plain_http)"),
    ],
)
def test_decode_shows_what_there_is(tmp_path: Path, data: bytes, words: str) -> None:
    assert decoded(tmp_path, (0, data))[0] == words


def test_decode_shows_nothing_behind_a_gap(tmp_path: Path) -> None:
    data = HELLOS["chromium"]
    assert decoded(tmp_path, (1000, data[1000:]), (0, data[:900]))[:2] == [
        "",
        "incomplete ClientHello",
    ]
