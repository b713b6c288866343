"""Health checks, /health and /metrics and the access log, of running programs with real servers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, VIP, Lab, running, until

pytestmark = pytest.mark.root

BALANCER_PORT, BRIDGE_PORT = 9310, 9320
OFTEN = "interval = 0.2, timeout = 0.5, rise = 2, fall = 2"
SOON = 5.0  # seconds: for what takes one, on a machine that is busy


def checking_balancer(text: str) -> str:
    """The lab's balancer, with a pool that is checked."""
    head = text.partition("[[services]]")[0]
    return f"""{head}
[http]
listen = ["{VIP}:{BALANCER_PORT}"]

[[services]]
name = "web"
vip = "{VIP}"
port = 80
dscp = 1
pool = "pages"

[[pools]]
name = "pages"
check = {{ {OFTEN} }}
backends = [
    {{ name = "backend1", bridge = "{BRIDGE1}" }},
    {{ name = "backend2", bridge = "{BRIDGE2}" }},
]
"""


def checking_bridge(text: str) -> str:
    check = f'kind = "http", path = "/1k", status = ["200"], {OFTEN}'
    return text.replace('source = "client"', f'source = "client"\ncheck = {{ {check} }}')


def logging_bridge(text: str) -> str:
    return checking_bridge(text) + f'\n[access_log]\nfile = "{LAB}/log/access-backend1.log"\n'


@pytest.fixture(scope="module", autouse=True)
def checked(running_lab: Lab) -> Iterator[None]:
    with running_lab.configured(
        balancer=checking_balancer, backend1=logging_bridge, backend2=checking_bridge
    ):
        yield


def get(lab: Lab, address: str, port: int, path: str) -> tuple[int, bytes, float]:
    """Status, body and seconds, as the first client is answered."""

    def ask() -> tuple[int, bytes, float]:
        begun = time.monotonic()
        connection = http.client.HTTPConnection(address, port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(), time.monotonic() - begun
        finally:
            connection.close()

    return lab.inside("client", ask)


def health(lab: Lab) -> dict[str, Any]:
    """What the balancer says of its backends, by name."""
    body = json.loads(get(lab, VIP, BALANCER_PORT, "/health")[1])
    return {backend["name"]: backend for backend in body["pools"][0]["backends"]}


def metrics(
    lab: Lab, address: str = VIP, port: int = BALANCER_PORT
) -> dict[tuple[str, ...], float]:
    """By name and the labels' values, in the labels' alphabetical order."""
    status, body, _ = get(lab, address, port, "/metrics")
    assert status == 200
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def agent_of(lab: Lab, program: str) -> int:
    """The process of a program's agent."""
    children = Path(f"/proc/{lab.pid(program)}/task/{lab.pid(program)}/children").read_text()
    for child in map(int, children.split()):
        if b"common.program.agent" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    return 0


def all_up(lab: Lab) -> None:
    until(lambda: agent_of(lab, "balancer"), SOON, "there is an agent")
    until(lambda: _answers(lab), SOON, "the balancer answers")
    until(lambda: all(one["up"] for one in health(lab).values()), SOON, "both are up")


def _answers(lab: Lab) -> bool:
    try:
        return get(lab, VIP, BALANCER_PORT, "/health")[0] == 200
    except OSError:
        return False


def test_a_server_that_is_down_gets_no_connections_until_it_is_back(lab: Lab) -> None:
    all_up(lab)
    path = lab.path_for("1k", "backend1")
    lab.script("stop", "nginx-backend1")
    until(lambda: not health(lab)["backend1"]["up"], SOON, "it is down")
    said = health(lab)["backend1"]["reason"]
    assert said == "server 192.168.33.30:80: connection refused"
    status, body, _ = get(lab, BRIDGE1, BRIDGE_PORT, "/health")
    (entry,) = json.loads(body)["backends"]
    assert (status, entry["up"], entry["reason"]) == (200, False, "connection refused")
    for _ in range(5):
        answer = lab.curl(path)
        assert (answer.status, answer.backend) == (200, "backend2")
    lab.script("start", "nginx-backend1")
    until(lambda: health(lab)["backend1"]["up"], SOON, "it is up")
    assert lab.curl(path).backend == "backend1"
    for program, whom in (("balancer", "pages/backend1:"), ("backend1", "server 192.168.33.30:80")):
        log = lab.log(program)
        assert re.search(f"{whom} is down: .*connection refused", log)
        assert f"{whom} is up again" in log


def test_a_bridge_that_is_down_gets_no_connections_until_it_is_back(lab: Lab) -> None:
    all_up(lab)
    path = lab.path_for("1k", "backend2")
    lab.script("stop", "backend2")
    until(lambda: not health(lab)["backend2"]["up"], SOON, "it is down")
    assert f"bridge at {BRIDGE2}:{BRIDGE_PORT}: " in health(lab)["backend2"]["reason"]
    answer = lab.curl(path)
    assert (answer.status, answer.backend) == (200, "backend1")
    lab.script("start", "backend2")
    until(lambda: health(lab)["backend2"]["up"], SOON, "it is up")
    assert lab.curl(path).backend == "backend2"


def test_metrics_are_what_happened(lab: Lab) -> None:
    all_up(lab)
    path = lab.path_for("1m", "backend1")
    time.sleep(0.3)  # an answer may be a quarter of a second old
    before, bridge = metrics(lab), metrics(lab, BRIDGE1, BRIDGE_PORT)
    for _ in range(7):
        assert lab.curl(path).status == 200
    which = BRIDGE1, "1", "80", "tcp", "192.168.33.30:80"

    def grown(name: str, *labels: str, program: str = "balancer", address: str = VIP) -> float:
        port = BALANCER_PORT if program == "balancer" else BRIDGE_PORT
        key = (f"l3dsr_{program}_{name}", *labels)
        return metrics(lab, address, port)[key] - (before if program == "balancer" else bridge)[key]

    until(lambda: grown("handoffs_total") == 7, SOON, "it counts seven handoffs")
    assert grown("connections_total") == 7
    assert grown("backend_handoffs_total", "backend1", "pages") == 7
    assert grown("handoff_seconds_count") == 7
    assert sum(grown("forwarded_packets_total", "to_bridge", by) for by in ("python", "kernel")) > 7
    assert grown("packets_dropped_total", "internal_error") == 0
    taken = {"program": "packetbridge", "address": BRIDGE1}
    assert grown("server_flows_opened_total", *which, **taken) == 7
    assert grown("handoff_seconds_count", *which, **taken) == 7
    ways = ("python", "kernel")
    carried = sum(grown("forwarded_bytes_total", "to_client", by, **taken) for by in ways)
    assert carried > 7 << 20
    assert metrics(lab)["l3dsr_balancer_queue_packets", "packets"] < 16384


def test_an_agent_that_dies_is_replaced_and_no_connection_notices(lab: Lab) -> None:
    all_up(lab)
    before = agent_of(lab, "balancer")
    with lab.connect() as tcp:
        os.kill(before, signal.SIGKILL)
        assert lab.curl("/1k").status == 200
        until(lambda: agent_of(lab, "balancer") not in (0, before), SOON, "there is another")
        until(lambda: _answers(lab), SOON, "it answers")
        tcp.sendall(b"GET /1k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert tcp.recv(15) == b"HTTP/1.1 200 OK"
    assert "the agent" in lab.log("balancer")


def test_an_agent_ends_with_its_program_however_that_ends(lab: Lab) -> None:
    all_up(lab)
    agent = agent_of(lab, "backend2")
    os.kill(lab.pid("backend2"), signal.SIGKILL)
    until(lambda: not running(agent), SOON, "its agent has ended")
    lab.script("restart", "backend2")


def test_the_access_log_goes_on_in_a_new_file(lab: Lab) -> None:
    all_up(lab)
    path, log = lab.path_for("1k", "backend1"), LAB / "log" / "access-backend1.log"

    def lines(file: Path) -> list[Any]:
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    port = lab.curl(path).port
    client = f"192.168.33.1:{port}"
    until(lambda: any(line["client"] == client for line in lines(log)), SOON, "a line for it")
    moved = log.rename(log.with_suffix(".log.1"))
    os.kill(lab.pid("backend1"), signal.SIGUSR1)
    until(lambda: lab.curl(path) and log.exists(), SOON, "there is a new file")
    port = lab.curl(path).port
    until(lambda: any(line["client"].endswith(f":{port}") for line in lines(log)), SOON, "a line")
    assert not [line for line in lines(moved) if line["client"].endswith(f":{port}")]


@pytest.mark.speed
def test_health_and_metrics_answer_within_a_second_under_load(lab: Lab) -> None:
    """As many requests as wrk brings about: the balancer's process has no moment to spare."""
    all_up(lab)
    command = ["wrk", "-t2", "-c64", "-d4s", "-H", "Connection: close", f"http://{VIP}/1k"]
    with subprocess.Popen(lab.command("client", *command), stdout=subprocess.DEVNULL) as load:
        time.sleep(1)
        taken = []
        while load.poll() is None:
            for address, port in ((VIP, BALANCER_PORT), (BRIDGE1, BRIDGE_PORT)):
                for path in ("/health", "/metrics"):
                    status, _, seconds = get(lab, address, port, path)
                    assert status == 200
                    taken.append(seconds)
    assert len(taken) > 8
    assert max(taken) < 1.0, sorted(taken)[-5:]
