"""The agent, a process of its own, beside a packet process that is played."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from common.adapters.agent.child import Child
from common.core.agent_settings import AgentSettings, BridgeCheck, Member, ServerCheck, decode
from common.core.agent_settings import encode as encode_settings
from common.core.bridge_health import Entry, encode
from common.core.health import Rhythm
from common.core.histogram import Histogram
from common.core.metrics import Family
from tests.agent.stage import (
    free_port,
    packet_process,
    response,
    saying,
    server,
    until,
)

OFTEN = Rhythm(0.05, 0.1)


def got(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        got(port, "/nothing")
    except OSError:
        return False
    return True


# --- checks ---


def test_a_server_is_checked_and_what_was_found_is_reported() -> None:
    with server(saying(response())) as port:
        checks = (
            ServerCheck(("a", 1), "tcp", "127.0.0.1", port, OFTEN, 1.0),
            ServerCheck(("b", 1), "http", "127.0.0.1", port, OFTEN, 1.0, status=((404, 404),)),
        )
        with packet_process(servers=checks) as played:
            until(lambda: len(played.results) >= 10)
    assert set(map(str, played.results)) == {
        "(['a', 1], True, '')",
        "(['b', 1], False, 'status 200')",
    }


def test_one_request_serves_all_pools_of_a_bridge() -> None:
    asked = []
    entries = [Entry("127.0.0.1", 80, (1,), "s:1"), Entry("127.0.0.1", 81, (1,), "s:2", False, "x")]

    def health(connected: socket.socket) -> None:
        asked.append(1)
        saying(response(json.dumps(encode(entries)).encode()))(connected)

    members = tuple(
        Member((pool, "b"), "127.0.0.1", ((port, 1, "tcp"),))
        for pool, port in (("one", 80), ("two", 80), ("three", 81), ("four", 82))
    )
    with server(health) as port:
        check = BridgeCheck("127.0.0.1", port, OFTEN, 1.0, members)
        with packet_process(bridges=(check,)) as played:
            until(lambda: len(played.results) >= 4 * 5)
    assert len(asked) <= len(played.results) / 4 + 1
    assert {tuple(target): (well, reason) for target, well, reason in played.results} == {
        ("one", "b"): (True, ""),
        ("two", "b"): (True, ""),
        ("three", "b"): (False, "server s:2: x"),
        ("four", "b"): (False, "the bridge has no backend for port 82 with DSCP 1"),
    }


def test_changed_settings_are_followed_without_a_new_agent() -> None:
    with server(saying(response())) as port:
        one, other = (
            ServerCheck((name,), "tcp", "127.0.0.1", port, OFTEN, 1.0) for name in ("one", "other")
        )
        with packet_process(servers=(one,)) as played:
            until(lambda: played.results)
            played.change(servers=(other,))
            until(lambda: (["other"], True, "") in played.results)
            played.results.clear()
            until(lambda: len(played.results) >= 5)
            assert {str(target) for target, _, _ in played.results} == {"['other']"}
            assert played.child.starts == 1


def test_hundreds_of_checks_are_all_made() -> None:
    with server(lambda _: None) as port:
        checks = tuple(
            ServerCheck((number,), "tcp", "127.0.0.1", port, Rhythm(0.5, 0.1), 1.0)
            for number in range(300)
        )
        with packet_process(servers=checks) as played:
            until(lambda: len({target[0] for target, _, _ in played.results}) == 300)


# --- /health and /metrics ---


@pytest.fixture
def port() -> int:
    return free_port()


def test_health_is_what_the_packet_process_says(port: int) -> None:
    with packet_process(listen=(("127.0.0.1", port),)) as played:
        until(lambda: answers(port))
        pool = {"name": "p", "status": "down", "backends": []}
        played.health = {"status": "degraded", "pools": [pool]}
        status, fields, body = got(port, "/health")
        assert (status, fields["Content-Type"]) == (200, "application/json; charset=utf-8")
        assert json.loads(body) == played.health
        assert got(port, "/health", "HEAD")[::2] == (200, b"")
        assert got(port, "/health?pool=p")[0] == 503
        assert got(port, "/health?pool=q")[0] == 404
        played.health = {"status": "down"}
        until(lambda: got(port, "/health")[0] == 503)
        assert got(port, "/")[0] == 404
        assert got(port, "/health", "POST")[0] == 405


def test_asking_often_does_not_ask_the_packet_process_as_often(port: int) -> None:
    with packet_process(listen=(("127.0.0.1", port),)) as played:
        until(lambda: answers(port))
        begun = time.monotonic()
        for _ in range(200):
            got(port, "/health")
        taken = time.monotonic() - begun
        assert played.asked.count("agent-health") <= taken / 0.25 + 1


def test_a_packet_process_that_stands_still_is_down_within_a_second(port: int) -> None:
    with packet_process(listen=(("127.0.0.1", port),)) as played:
        until(lambda: answers(port))
        played.stalled.clear()
        for path in ("/health", "/metrics"):
            begun = time.monotonic()
            status, _, body = got(port, path)
            assert (status, time.monotonic() - begun < 1) == (503, True)
            assert b"has not answered" in body
        played.stalled.set()
        until(lambda: got(port, "/health")[0] == 200)


def test_openmetrics_is_given_to_whoever_asks_for_it(port: int) -> None:
    with packet_process(listen=(("127.0.0.1", port),), families=(FLOWS, DROPS)) as played:
        played.rows = [FLOWS.row(3, "handed"), DROPS.row(7, "bad")]
        until(lambda: answers(port))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        found = {
            sample.name: sample.value
            for family in openmetrics.text_string_to_metric_families(answer.read().decode())
            for sample in family.samples
        }
        connection.close()
    assert (found["l3dsr_balancer_flows"], found["l3dsr_balancer_drops_total"]) == (3, 7)


FLOWS = Family("l3dsr_balancer_flows", "gauge", "Flows.", ("state",))
DROPS = Family("l3dsr_balancer_drops_total", "counter", "Drops.", ("reason",))
TIMES = Family("l3dsr_balancer_handoff_seconds", "histogram", "Times.", (), (0.1, 1.0))


def test_metrics_are_read_back_as_they_were_counted(port: int) -> None:
    histogram = Histogram(TIMES.bounds)
    for seconds in (0.05, 0.5, 0.5, 7.0):
        histogram.observe(seconds)
    settings: dict[str, Any] = {
        "listen": (("127.0.0.1", port),),
        "families": (FLOWS, DROPS, TIMES),
    }
    with packet_process(**settings) as played:
        played.rows = [
            FLOWS.row(3, "handed"),
            FLOWS.row(1, "waiting"),
            DROPS.row(12345678901, 'odd "reason"'),
            TIMES.times(histogram),
            ["unheard_of", [], 1],
        ]
        until(lambda: answers(port))
        status, fields, body = got(port, "/metrics")
    assert status == 200
    assert fields["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["l3dsr_balancer_flows", "handed"] == 3
    assert samples["l3dsr_balancer_flows", "waiting"] == 1
    assert samples["l3dsr_balancer_drops_total", 'odd "reason"'] == 12345678901
    assert samples["l3dsr_balancer_handoff_seconds_bucket", "0.1"] == 1
    assert samples["l3dsr_balancer_handoff_seconds_bucket", "1.0"] == 3
    assert samples["l3dsr_balancer_handoff_seconds_bucket", "+Inf"] == 4
    assert samples["l3dsr_balancer_handoff_seconds_count",] == 4
    assert samples["l3dsr_balancer_handoff_seconds_sum",] == pytest.approx(8.05)
    assert families["l3dsr_balancer_drops"].type == "counter"
    assert samples["l3dsr_balancer_agent_process_cpu_seconds_total",] > 0
    assert samples["l3dsr_balancer_agent_access_log_lines_total", "written"] == 0
    assert not any("unheard" in name for name, *_ in samples)


def test_an_address_that_is_taken_is_had_once_it_is_free(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    other = free_port()
    with packet_process() as played:
        with socket.create_server(("127.0.0.1", port)):
            played.change(listen=(("127.0.0.1", port), ("127.0.0.1", other)))
            until(lambda: answers(other))
        until(lambda: answers(port))
    said = capfd.readouterr().err
    assert said.count(f"cannot listen at 127.0.0.1 port {port}: Address already in use") == 1


def test_who_connects_and_says_nothing_keeps_nobody_out(port: int) -> None:
    with packet_process(listen=(("127.0.0.1", port),)):
        until(lambda: answers(port))
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        until(lambda: sum(map(ended, crowd)) == 200 - 128)
        assert got(port, "/health")[0] == 200
        for one in crowd:
            one.close()


def ended(connection: socket.socket) -> bool:
    """Whether the other side has ended it."""
    try:
        return connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# --- the access log ---


def test_records_become_lines_and_a_moved_file_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with packet_process(access_log=str(path)) as played:
        played.records = [{"flow": "0123456789abcdef", "bytes": n} for n in range(1000)]
        until(lambda: path.exists() and len(path.read_text().splitlines()) == 1000)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["bytes"] for line in lines] == list(range(1000))
        moved = path.rename(tmp_path / "access.log.1")
        played.records.append({"n": 1})
        until(lambda: moved.read_text().endswith('{"n":1}\n'))  # as nobody has said otherwise
        played.reopen += 1
        played.records.append({"n": 2})
        until(lambda: path.exists() and path.read_text() == '{"n":2}\n')
        assert moved.read_text().count("\n") == 1001
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_said_once_and_counted(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """/dev/full takes nothing, as a full disk does."""
    listen = (("127.0.0.1", port),)
    with packet_process(access_log="/dev/full", listen=listen) as played:
        until(lambda: answers(port))
        for number in range(1, 4):
            played.records.append({"n": 1})
            line = b'l3dsr_balancer_agent_access_log_lines_total{result="lost"} %d.0' % number
            until(lambda line=line: line in got(port, "/metrics")[2])  # type: ignore[misc]
        played.change(access_log="")
        until(lambda: not played.records)
    assert capfd.readouterr().err.count("No space left on device") == 1


# --- its life ---


def test_it_ends_with_the_packet_process() -> None:
    with packet_process() as played:
        until(lambda: played.asked)
        process = played.child._process
        assert process is not None and process.poll() is None
        played.hang_up()
        assert process.wait(5) == 0


def test_one_that_dies_is_started_again_later_each_time(caplog: pytest.LogCaptureFixture) -> None:
    with packet_process() as played:
        starts = []
        now = 0.0
        for _ in range(4):
            process = played.child._process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            process.wait(5)
            found = played.child.starts
            begun = now
            while played.child.starts == found:
                played.start(now)
                now += 0.25
            starts.append(now - 0.25 - begun)
        assert starts == [1.0, 2.0, 4.0, 8.0]
        played.asked.clear()
        until(lambda: "health" in played.asked)  # the last of them works
    assert caplog.text.count("ended by signal 9") == 1


def test_one_that_cannot_be_started_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    child = Child(["/nonexistent/python"])
    assert [child.look(now) for now in (0.0, 0.5, 1.0, 2.0, 3.0)] == [None] * 5
    assert caplog.text.count("the agent cannot be started") == 1
    child.close()


def test_it_has_nothing_of_its_parent_but_its_end_of_the_socket(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        with packet_process() as played:
            until(lambda: played.asked)
            process = played.child._process
            assert process is not None
            place = Path(f"/proc/{process.pid}")
            files = [os.readlink(file) for file in (place / "fd").iterdir()]
            assert not [file for file in files if "secret" in file]
            status = dict(
                line.split(":", 1) for line in (place / "status").read_text().splitlines()
            )
            for held in ("CapEff", "CapPrm", "CapAmb"):
                assert int(status[held], 16) == 0


def test_one_that_hangs_is_ended() -> None:
    child = Child(["sleep", "1000"])  # and the socket's number: it adds them up
    connected = child.look(0.0)
    assert connected is not None
    process = child._process
    assert process is not None
    connected.close()
    child.close()
    assert process.poll() == -signal.SIGKILL


def test_settings_are_the_same_at_the_other_end() -> None:
    check = ServerCheck(("t", 1, (2, 3)), "http", "192.0.2.1", 80, OFTEN, 1.0, "/", "h", ((1, 2),))
    bridge = BridgeCheck(
        "192.0.2.2",
        1,
        OFTEN,
        2.0,
        (Member(("p", "b"), "192.0.2.3", ((80, 1, "tcp"), (81, 1, "tcp"))),),
    )
    settings = AgentSettings(
        "balancer",
        7,
        "debug",
        (("127.0.0.1", 1),),
        "/a",
        "text",
        ((3310, "packets"),),
        (bridge,),
        (check,),
        (FLOWS, DROPS, TIMES),
    )
    assert decode(json.loads(json.dumps(list(encode_settings(settings))))) == settings
