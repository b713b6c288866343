"""GET /flow, of an agent beside a packet process that is played."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.agent.stage import PacketProcess, free_port, packet_process, until
from tests.agent.test_agent import answers, got

QUESTION = "/flow?client=127.0.0.1:40000&service=203.0.113.10:80"


@contextmanager
def agent(**settings: Any) -> Iterator[tuple[PacketProcess, int]]:
    port = free_port()
    with packet_process(listen=(("127.0.0.1", port),), **settings) as played:
        until(lambda: answers(port))
        yield played, port


def told(port: int, question: str = QUESTION) -> dict[str, Any]:
    status, _, body = got(port, question)
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_it_says_what_the_packet_process_knows_and_what_its_host_does() -> None:
    with agent() as (played, port):
        played.flow = {"flow": {"id": "0123456789abcdef"}, "counters": {"packets": 7}}
        answer = told(port)
    asked = {"client": "127.0.0.1:40000", "service": "203.0.113.10:80"}
    assert answer["asked"] == asked | {"protocol": "tcp"}
    assert answer["flow"] == {"id": "0123456789abcdef"}
    assert answer["counters"] == {"packets": 7}
    assert answer["time"] == pytest.approx(time.time(), abs=5)
    assert answer["host"]["counters"].keys() >= {"TcpExt.IPReversePathFilter", "Ip.OutNoRoutes"}
    assert answer["host"]["no_route"] == {}  # to the client, which is here
    assert "bridges" not in answer


def test_a_balancer_asks_its_bridges_where_it_is_told_to() -> None:
    """One has an agent, one has not."""
    with agent() as (bridge, there), agent() as (played, port):
        backends = [{"bridge": "127.0.0.1", "port": each} for each in (there, free_port())]
        played.flow |= {"service": {"backends": backends}}
        bridge.flow["flow"] = {"state": "spliced"}
        question = f"{QUESTION}&bridges=yes&protocol=udp"
        one, other = told(port, question)["bridges"].values()
    assert one["flow"] == {"state": "spliced"}
    assert (one["asked"]["client"], one["asked"]["protocol"]) == ("127.0.0.1:40000", "udp")
    assert abs(one["ahead"]) < 1
    assert other == {"trouble": "connection refused"}


@pytest.mark.parametrize(
    "question",
    [
        "/flow",
        "/flow?client=127.0.0.1:40000",
        "/flow?client=127.0.0.1&service=203.0.113.10:80",
        "/flow?client=localhost:1&service=203.0.113.10:80",
        f"{QUESTION}&protocol=sctp",
    ],
)
def test_a_question_that_is_none(question: str) -> None:
    with agent() as (played, port):
        status, _, body = got(port, question)
        assert "agent-flow" not in played.asked
    assert status == 400
    assert "right would be" in json.loads(body)["reason"]


def test_who_asks_without_end_is_refused_and_health_is_not() -> None:
    with agent() as (played, port):
        found = [got(port, QUESTION)[0] for _ in range(30)]
        assert got(port, "/health")[0] == 200
    assert set(found) == {200, 429}
    assert played.asked.count("agent-flow") == found.count(200) < 30


def test_a_packet_process_that_stands_still() -> None:
    with agent() as (played, port):
        played.stalled.clear()
        begun = time.monotonic()
        status, _, body = got(port, QUESTION)
        assert time.monotonic() < begun + 1.5
        played.stalled.set()
        assert got(port, "/health")[0] == 200  # it has given its late answer, too
    assert status == 503
    assert json.loads(body)["reason"].startswith("the packet process")
