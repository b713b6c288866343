"""A bridge reads a changed configuration again while it runs, on either data path."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.controlled import give, seen, told
from tests.e2e.lab import CONFIGURATIONS, SERVER1, VIP, Lab, until
from tests.e2e.scripted import PORT, echo_head, head_of, respond, scripted_service, serving

pytestmark = pytest.mark.root

SCRIPTED = (VIP, PORT)
OTHER = PORT + 1
Change = Callable[[Callable[[str], str]], None]


@pytest.fixture(scope="module")
def scripted(running_lab: Lab) -> Iterator[None]:
    with scripted_service(running_lab):
        yield


@pytest.fixture
def change(lab: Lab, scripted: None) -> Iterator[Change]:
    """Changes the bridge's file; it is as it was at the end, and in force."""
    file = lab.directory / "etc" / CONFIGURATIONS["backend1"]
    before = file.read_text()

    def changed(how: Callable[[str], str]) -> None:
        text = how(before)
        assert text != before
        file.write_text(text)

    try:
        yield changed
    finally:
        file.write_text(before)
        told(lab, "backend1", "reload")


def _other(tcp: socket.socket) -> None:
    head_of(tcp)
    respond(tcp, b"the other server")


def _ask(tcp: socket.socket) -> bytes:
    tcp.sendall(web.request("/"))
    return web.response(tcp).body


def _to_the_other(text: str) -> str:
    return text.replace(f'server = "{SERVER1}:{PORT}"', f'server = "{SERVER1}:{OTHER}"')


def test_new_connections_go_to_the_new_server_and_the_old_go_on(lab: Lab, change: Change) -> None:
    with serving(lab, echo_head), serving(lab, _other, address=(SERVER1, OTHER)):
        with lab.connect(to=SCRIPTED) as old:
            assert _ask(old) == web.request("/")
            change(_to_the_other)
            told(lab, "backend1", "reload")
            with lab.connect(to=SCRIPTED) as new:
                assert _ask(new) == b"the other server"
            for _ in range(3):
                assert _ask(old) == web.request("/")
            assert f"--sport {PORT} " in "\n".join(lab.rules("backend1"))
        until(
            lambda: (
                f"-s {SERVER1}/32 -p tcp -m tcp --sport {PORT} "
                not in "\n".join(lab.rules("backend1"))
            ),
            15,
            "the former server's rules are gone with its connections",
        )


def test_by_sighup_too(lab: Lab, change: Change) -> None:
    change(_to_the_other)
    start = lab.log_end("backend1")
    os.kill(lab.pid("backend1"), signal.SIGHUP)
    until(lambda: "is in force" in lab.log("backend1", start), 10, "it is read")
    with serving(lab, _other, address=(SERVER1, OTHER)), lab.connect(to=SCRIPTED) as tcp:
        assert _ask(tcp) == b"the other server"


@pytest.mark.parametrize(
    ("how", "mistake"),
    [
        (lambda text: text + "colour = 1\n", "colour"),
        (lambda text: text.replace("queue = 3320", "queue = 3321"), "queue: is another"),
        (lambda text: text + "[limits]\nflows = 0\n", "limits.flows: 0 is wrong"),
    ],
    ids=["a key", "what is fixed", "a value"],
)
def test_a_mistake_leaves_all_as_it_is(
    lab: Lab, change: Change, how: Callable[[str], str], mistake: str
) -> None:
    rules = lab.rules("backend1")
    change(lambda text: how(_to_the_other(text)))
    done = give(lab, "backend1", "reload")
    assert done.returncode == 1
    assert mistake in done.stderr
    assert lab.rules("backend1") == rules
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        assert _ask(tcp) == web.request("/")


def test_the_access_log_says_what_became_of_connections(lab: Lab, change: Change) -> None:
    """Turned on while it runs; the kernel's path tells of what it carried."""
    file = lab.directory / "log" / "access-bridge.log"
    file.unlink(missing_ok=True)
    change(lambda text: text + f'\n[access_log]\nfile = "{file}"\n')
    told(lab, "backend1", "reload")
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        client = "{}:{}".format(*tcp.getsockname())
        for _ in range(5):
            _ask(tcp)
        (flow,) = [each for each in seen(lab, "backend1", "flows") if each["client"] == client]

    def logged() -> list[dict[str, object]]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [each for each in map(json.loads, lines) if each["client"] == client]

    (line,) = until(logged, 10, "the line is written")
    assert line["id"] == flow["id"]
    assert line["end"] == "client_fin"
    assert line["server"] == f"{SERVER1}:{PORT}"
    size = len(web.request("/"))
    assert 5 * size + 6 * 40 < line["bytes_up"] < 5 * size + 30 * 60
    assert line["bytes_down"] > 5 * size
    assert 0 <= line["connect"] <= line["first_byte"] <= line["duration"] < 10
