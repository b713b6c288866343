"""Both programs write a line for each connection, which name it alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import controlled, web
from tests.e2e.lab import CLIENT, LAB, Lab, until

pytestmark = pytest.mark.root

SOON = 10.0  # seconds


def log_of(program: str) -> Path:
    return LAB / "log" / f"access-of-{program}.log"


def logging(program: str) -> Callable[[str], str]:
    return lambda text: text + f'\n[access_log]\nfile = "{log_of(program)}"\n'


@pytest.fixture(scope="module", autouse=True)
def logged(running_lab: Lab) -> Iterator[None]:
    programs = ("balancer", "backend1", "backend2")
    for program in programs:
        log_of(program).unlink(missing_ok=True)
    with running_lab.configured(**{program: logging(program) for program in programs}):
        yield


def line_of(program: str, port: int) -> dict[str, Any]:
    """The line of the client's connection from that port."""

    def found() -> dict[str, Any] | None:
        log = log_of(program)
        text = log.read_text() if log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        return next((line for line in lines if line["client"] == f"{CLIENT}:{port}"), None)

    return until(found, SOON, f"{program} has a line for it") or {}


def test_a_request_and_its_response(lab: Lab) -> None:
    path = lab.path_for("1m", "backend2")
    answer = lab.curl(f"{path}?q=1")
    ours, bridges = line_of("balancer", answer.port), line_of("backend2", answer.port)
    assert ours["id"] == bridges["id"]
    assert (ours["method"], ours["target"], ours["key"]) == ("GET", f"{path}?q=1", f"path={path}")
    assert (ours["service"], ours["pool"], ours["backend"]) == ("web", "web", "backend2")
    assert (ours["why"], bridges["end"]) == ("ended", "client_fin")
    assert bridges["bytes_down"] > len(answer.body) == 1 << 20
    assert 0 < bridges["connect"] <= bridges["first_byte"] <= bridges["duration"]
    assert 0 <= ours["handed"] <= ours["duration"]


def test_while_it_goes_on_the_commands_name_it_as_the_log_will(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/"))
        backend = web.response(tcp).backend
        port = tcp.getsockname()[1]
        shown = [
            controlled.seen(lab, program, "flows", "--client", f"{CLIENT}:{port}")[0]["id"]
            for program in ("balancer", backend)
        ]
    assert {*shown, line_of("balancer", port)["id"], line_of(backend, port)["id"]} == {shown[0]}


def test_of_what_is_not_served(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.sendall(b"\x16\x03\x01\x00\x00 no HTTP")
        port = tcp.getsockname()[1]
        line = line_of("balancer", port)
    assert (line["why"], line["backend"], line["method"]) == ("tls_hello", None, None)


def test_of_a_connection_that_is_handed_on(lab: Lab) -> None:
    path = lab.path_for("1k", "backend2")
    lab.script("stop", "nginx-backend2")
    try:
        port = lab.curl(path).port
    finally:
        lab.script("start", "nginx-backend2")
    ours, tried = line_of("balancer", port), line_of("backend2", port)
    assert (ours["backend"], ours["tried"], ours["why"]) == ("backend1", "backend2", "ended")
    assert tried["end"].startswith("refused:")
    assert {line["id"] for line in (ours, tried, line_of("backend1", port))} == {ours["id"]}
