"""HTTP/2 in the balancer's core: it is never answered in HTTP/1, and told of by its version."""

from __future__ import annotations

import socket

import pytest

from balancer.core.config import RateLimit, Route
from balancer.core.fast_path import Former
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, REQUEST, VIP, Client, Stage, handoff_of
from tests.unit.http2_heads import GET, START, compressed, frame, head, headers, with_fields
from tests.unit.scapy_oracle import fields
from tests.unit.test_balancer_lifetimes import Remembering

HEAD = head(GET)
LIMITED = {"limit": RateLimit(rate=0.001, burst=1, per="key")}


def is_reset(stage: Stage, client: Client) -> bool:
    answer = stage.reply()
    return (answer["flags"], answer["seq"], answer["payload"]) == (
        "R",
        (client.b + 1) % 2**32,
        b"",
    )


def test_no_backend_is_told_by_a_reset() -> None:
    """In HTTP/1 by 503, as test_balancer_redispatch has it."""
    stage = Stage(bridges=BRIDGES[:1], pool={"retries": 0})
    client = Client(stage).connect()
    assert handoff_of(client.send(HEAD, flags="PA"))
    assert stage.packet(client.answer(models.REFUSED, rest=HEAD)) is None
    assert is_reset(stage, client)
    assert stage.count("backend_refused") == 1
    assert stage.count("replied_503") == 0
    assert stage.core.gauges()["flows"] == 0


@pytest.mark.parametrize(
    ("data", "said"), [(HEAD, b""), (REQUEST, b"HTTP/1.1 503")], ids=("2", "1")
)
def test_after_a_restart_what_comes_back_says_what_it_is(data: bytes, said: bytes) -> None:
    """Of a connection that the kernel went on steering, and that its bridge then gave back."""
    kernel = Remembering()
    stage = Stage(bridges=BRIDGES[:1], pool={"retries": 0}, fast=kernel)
    client = Client(stage)
    bridge, first = socket.inet_aton(BRIDGES[0]), (client.c + 1) % 2**32
    flow = models.flow_bytes(client.address, VIP)
    kernel.kept[flow] = Former(flow, bridge, first, client.b, 0, stage.now, suspect=False)
    client.send(at=len(data))  # by which the balancer learns of it
    assert stage.count("flows_adopted") == 1
    stage.sent()
    assert stage.packet(client.answer(models.REFUSED, rest=data)) is None
    answer = stage.reply()
    assert answer["payload"].startswith(said)
    assert ("R" in answer["flags"]) == (not said)


def test_too_many_requests_are_told_by_a_reset() -> None:
    """Of one key, whose request in HTTP/1 is answered by 429."""
    stage = Stage(pool=LIMITED)
    for turn, data in enumerate((HEAD, HEAD, REQUEST)):
        client = Client(stage, ("198.51.100.7", 1000 + turn)).connect()
        verdict = client.send(data, flags="PA")
        if not turn:
            assert handoff_of(verdict)
        elif data is HEAD:
            assert verdict is None
            assert is_reset(stage, client)
        else:
            assert stage.reply()["payload"].startswith(b"HTTP/1.1 429 ")
    assert stage.count("over_rate_limit") == 2
    assert stage.count("replied_429") == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (START + headers(b"\x80"), "http2_bad_hpack"),
        (START + frame(0, 0, 1), "http2_bad_frame"),
        (head(with_fields(path=None)), "http2_pseudo_missing"),
        (head(with_fields((b"X", b"y"))), "http2_bad_field_name"),
    ],
    ids=("HPACK", "frame", "path", "name"),
)
def test_a_bad_head_is_reset_by_name(data: bytes, reason: str) -> None:
    stage = Stage()
    client = Client(stage).connect()
    assert client.send(data) is None
    assert is_reset(stage, client)
    assert stage.count(reason) == 1
    gauges = stage.core.gauges()
    assert (gauges["flows"], gauges["waiting"], gauges["buffered_bytes"]) == (0, 0, 0)


def test_a_bad_head_may_go_by_the_clients_address() -> None:
    stage = Stage(bad_request="source-hash")
    verdict = Client(stage, ("198.51.100.9", 1)).connect().send(START + headers(b"\x80"))
    assert handoff_of(verdict)
    assert verdict is not None
    assert fields(verdict)["dst"] == stage.bridge_of(bytes([198, 51, 100, 9]))


def test_a_preface_alone_is_waited_for_and_timed_out() -> None:
    """A client that wants the server's SETTINGS first waits in vain."""
    stage = Stage(timeouts={"request": 10.0})
    client = Client(stage).connect()
    assert client.send(START) is None
    stage.at(0.05)
    assert stage.reply()["ack"] == (client.c + 1 + len(START)) % 2**32, "it is acknowledged"
    stage.at(11.0)
    assert is_reset(stage, client)
    assert stage.count("request_timeout") == 1


def test_the_access_log_says_which_version() -> None:
    stage = Stage(routes=(Route("p", path_prefix="/a", name="as"),))
    stage.core.access.wanted = True
    for turn, data in enumerate((HEAD, REQUEST, START + frame(0, 0, 1))):
        client = Client(stage, ("198.51.100.7", 1000 + turn)).connect()
        client.send(data, flags="PA")
        client.send(at=len(data), flags="R")
        stage.packet(client.answer(models.ENDED, at=len(data)))
        stage.at(2000.0 * (turn + 1))
    records = stage.core.access.take(9)
    assert [record["http"] for record in records] == [2, 1, None]
    assert [record["method"] for record in records] == ["GET", "GET", None]
    assert [record["target"] for record in records] == ["/a?b", "/a", None]
    assert [record["key"] for record in records[:2]] == ["path=/a"] * 2
    assert records[2]["why"] == "http2_bad_frame"


def test_the_debug_log_names_it() -> None:
    stage = Stage()
    stage.core.ledger.verbose = True
    Client(stage).connect().send(START + headers(compressed(GET)), flags="PA")
    assert any("PRI * HTTP/2.0; key /a ->" in event for event in stage.core.ledger.events)
