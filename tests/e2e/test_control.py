"""Commands to running programs: what they show, change and end, and how they are answered while the
packets' way is full."""

from __future__ import annotations

import random
import re
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.utils import PcapReader

from common.adapters.control.client import ControlError, RefusedError
from tests.e2e import web
from tests.e2e.controlled import backend, client, give, line, seen, socket_of, told
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, PROGRAMS, VIP, Lab, until
from tests.e2e.load import download
from tests.install.terminal import terminal

pytestmark = pytest.mark.root

Report = Callable[[str], None]

SATURATING = 12  # connections that ask as fast as they are answered


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_the_socket_is_for_few_and_goes_with_its_program(lab: Lab, program: str) -> None:
    path = socket_of(lab, program)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_ISSOCK(path.stat().st_mode)
    lab.script("stop", program)
    try:
        assert not path.exists()
        done = give(lab, program, "status")
        name = "balancer" if program == "balancer" else "packetbridge"
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{name} is not running (no answer at {path})\n"
        with socket.socket(socket.AF_UNIX) as left:  # as by a program that was killed
            left.bind(str(path))
    finally:
        lab.script("start", program)
    assert seen(lab, program, "status")["pid"] == lab.pid(program)


def test_a_socket_that_cannot_be_had_prevents_the_start(lab: Lab) -> None:
    path = socket_of(lab, "balancer")
    lab.script("stop", "balancer")
    path.write_text("in the way")
    try:
        with pytest.raises(AssertionError, match="something else of that name; mend: remove it"):
            lab.script("start", "balancer")
    finally:
        path.unlink()
        lab.script("start", "balancer")


def test_status_backends_and_flows_show_a_connection(lab: Lab) -> None:
    with download(lab, "20m", "1M") as running:
        running.goes_on(100_000)
        status = seen(lab, "balancer", "status")
        assert status["datapath"] == lab.datapath
        assert status["services"][0]["vip"] == VIP
        assert status["gauges"]["flows"] >= 1
        flow = next(f for f in seen(lab, "balancer", "flows") if f["state"] == "handed")
        assert flow["client"].startswith(f"{CLIENT}:")
        assert flow["path"] == ("kernel" if lab.in_kernel else "python")
        mine = seen(lab, "balancer", "flows", "--client", flow["client"])
        assert [each["id"] for each in mine] == [flow["id"]]
        bridge = flow["backend"]
        there = seen(lab, bridge, "flows", "--client", flow["client"], "--state", "spliced")
        assert [each["id"] for each in there] == [flow["id"]], "both know it by the same name"
        assert backend(lab, bridge)["pending"] >= 1
        assert seen(lab, bridge, "backends")[0]["pending"] >= 1
        assert flow["id"] in told(lab, "balancer", "flows"), "in a table, too"
        frame = told(lab, "balancer", "top", "--frames", "1", "--interval", "0.2")
        assert re.search(r"web +backend1", frame)
        assert flow["client"] in told(lab, bridge, "flows")


@pytest.mark.parametrize("at", ["balancer", "bridge"])
def test_a_connection_is_ended_for_both_sides(lab: Lab, at: str) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/20m"))
        assert tcp.recv(1000)
        port = tcp.getsockname()[1]
        flow = seen(lab, "balancer", "flows", "--client", f"{CLIENT}:{port}")[0]
        by_name = flow["id"] if at == "balancer" else f"{CLIENT}:{port}"
        program = "balancer" if at == "balancer" else flow["backend"]
        assert told(lab, program, "flows", "--kill", by_name) == f"{flow['id']} is ended\n"
        with pytest.raises(ConnectionResetError):
            while tcp.recv(1 << 20):
                pass
    again = give(lab, program, "flows", "--kill", by_name)
    assert again.returncode == 1 or at == "bridge", "the bridge may still translate late packets"

    def gone() -> bool:
        return not lab.states(flow["backend"], port, to=80)

    until(gone, 5, "the server's side has ended")
    until(lambda: backend(lab, flow["backend"])["pending"] == 0, 5, "its place is free")


def test_an_idle_connection_is_ended_while_nobody_sends(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200
        told(lab, "balancer", "flows", "--kill", f"{CLIENT}:{tcp.getsockname()[1]}")
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)


def test_a_drained_backend_gets_nothing_new_and_its_count_falls_to_nothing(lab: Lab) -> None:
    path = lab.path_for("20m", "backend1")
    until(lambda: backend(lab, "backend1")["pending"] == 0, 5, "quiet")
    with download(lab, path, "10M") as running:
        running.goes_on(100_000)
        said = told(lab, "balancer", "drain", "web/backend1")
        assert said == "web/backend1: takes no new connections; 1 go on\n"
        try:
            assert backend(lab, "backend1")["state"] == "draining"
            assert {lab.curl(f"/small/{n}").backend for n in range(1, 5)} == {"backend2"}
            assert backend(lab, "backend1")["pending"] == 1
            running.arrives(20)
            until(lambda: backend(lab, "backend1")["pending"] == 0, 5, "its count falls to 0")
        finally:
            told(lab, "balancer", "ready", "web/backend1")
    assert lab.curl(path, "-I").backend == "backend1"


def test_a_bridge_that_is_drained_gives_connections_back(lab: Lab) -> None:
    path = lab.path_for("1k", "backend1")
    told(lab, "backend1", "drain", f"{BRIDGE1}:80")
    try:
        assert seen(lab, "backend1", "backends")[0]["state"] == "draining"
        assert lab.curl(path).backend == "backend2"
    finally:
        told(lab, "backend1", "ready", f"{BRIDGE1}:80")


def test_a_weight_of_nothing_takes_nothing(lab: Lab) -> None:
    assert told(lab, "balancer", "weight", "web/backend1", "0") == (
        "web/backend1: weight 0, was 1\n"
    )
    try:
        assert {lab.curl(f"/small/{n}").backend for n in range(1, 9)} == {"backend2"}
    finally:
        told(lab, "balancer", "weight", "web/backend1", "1")
    done = give(lab, "balancer", "drain", "web/nobody")
    assert done.stderr == "there is no backend 'web/nobody'; right would be POOL/BACKEND\n"


def test_a_backend_leaves_its_pool_and_comes_back(lab: Lab) -> None:
    paths = [f"/small/{number}" for number in range(1, 9)]
    assert "removed" in told(lab, "balancer", "remove", "web/backend2")
    try:
        assert {lab.curl(path).backend for path in paths} == {"backend1"}
    finally:
        added = told(lab, "balancer", "add", "web/backend2", "--bridge", BRIDGE2)
    assert added == f"web/backend2: added, bridge {BRIDGE2}, weight 1\n"
    assert {lab.curl(path).backend for path in paths} == {"backend1", "backend2"}


def test_a_reload_says_what_is_wrong_or_is_in_force(lab: Lab) -> None:
    file = lab.directory / "etc" / "balancer.toml"
    before = file.read_text()
    try:
        file.write_text(before.replace('name = "backend2"\n', 'name = "backend2"\nweigth = 2\n'))
        done = give(lab, "balancer", "reload")
        assert done.returncode == 1
        assert f"{file}: services[0].backends[1].weigth: no such key; did you mean" in done.stderr
        file.write_text(before.replace("weight = 1", "weight = 5", 1))
        assert "is in force" in told(lab, "balancer", "reload")
        assert backend(lab, "backend1")["weight"] == 5
    finally:
        file.write_text(before)
        told(lab, "balancer", "reload")


def test_explain_agrees_with_real_requests(lab: Lab) -> None:
    dice = random.Random(6)
    with client(lab) as asking:
        for _ in range(40):
            path = f"/small/{dice.randrange(1, 65)}?{dice.randbytes(4).hex()}"
            found = asking.ask("explain", method="GET", url=path, source=CLIENT)
            assert lab.curl(path).backend == found["backend"]
            assert found["order"][0] == found["backend"]
    text = told(lab, "balancer", "explain", "GET", f"http://{VIP}/a", "--header", "X-A: b")
    assert "path=/a" in text


def test_the_log_level_changes_while_running(lab: Lab) -> None:
    start = lab.log_end("balancer")
    told(lab, "balancer", "log-level", "debug")
    try:
        lab.curl("/1k")
        until(lambda: "GET /1k" in lab.log("balancer", start), 5, "a choice is logged")
    finally:
        told(lab, "balancer", "log-level", "info")
    start = lab.log_end("balancer")
    lab.curl("/1k")
    assert "GET /1k" not in lab.log("balancer", start)


def test_trace_shows_why_and_writes_what_was_on_the_wire(lab: Lab, tmp_path: Path) -> None:
    capture = tmp_path / "client.pcap"
    command = line(lab, "balancer", "trace", CLIENT, "--seconds", "1.5", "--write", str(capture))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tracing:
        until(capture.exists, 10, "the trace has begun")
        time.sleep(0.3)  # the request to begin is on its way; --seconds bounds all of it
        for _ in range(3):
            lab.curl("/1k")
        text = tracing.communicate(timeout=20)[0]
    assert "'GET /1k HTTP/1.1'" in text
    assert "HANDOFF" in text
    assert "why   steered" in text
    assert "key /1k -> backend" in text
    if not lab.in_kernel:
        assert "why   syn" in text
        assert "sent  " in text
    with PcapReader(str(capture)) as packets:
        wire = list(packets)
    assert len(wire) > 6
    assert any(b"GET /1k" in bytes(packet) for packet in wire)


def test_a_connection_comes_back_from_the_kernel_for_a_trace_and_goes_there_again(
    lab: Lab,
) -> None:
    with download(lab, "100m", "20M") as running:
        running.goes_on(100_000)
        flow = next(f for f in seen(lab, "balancer", "flows") if f["state"] == "handed")
        bridge = flow["backend"]

        def way(program: str) -> str:
            with client(lab, program) as asking:
                found = asking.all("flows", client=flow["client"])
            return str(next(each for each in found if each["id"] == flow["id"])["path"])

        usual = "kernel" if lab.in_kernel else "python"
        for program in ("balancer", bridge):
            assert way(program) == usual
            with client(lab, program) as tracing:
                pages = tracing.pages("trace", patience=10, flow=flow["id"])
                notes: list[dict[str, object]] = []
                while not notes:
                    notes += next(pages)
                assert way(program) == "python"
            # the tracer is gone without a word
            until(lambda p=program: way(p) == usual, 5, "the kernel has it again")  # type: ignore[misc]
            assert {"verdict", "reasons"} <= notes[0].keys()
        running.goes_on(100_000)


def test_there_is_one_trace_at_a_time(lab: Lab) -> None:
    with client(lab) as first, client(lab) as second, download(lab, "20m", "1M"):
        assert next(first.pages("trace", flow=CLIENT)), "it has begun"
        with pytest.raises(RefusedError, match="a trace is running already"):
            second.ask("trace", flow=CLIENT)


def test_the_prompt(lab: Lab, tmp_path: Path) -> None:
    command = line(lab, "balancer", "shell")
    state = {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with terminal(*command, **state) as user:
        assert user.shows(r"process \d+: 'help' lists")
        user.types("help\r")
        assert user.shows(r"quit +Stop the program[\s\S]*weight[\s\S]*balancer>")
        user.types("stat")
        assert user.shows(r"status .*Say what")
        user.types("\t\r")
        assert user.shows(rf"{VIP}:80")
        user.types("drain web/")
        assert user.shows(r"web/backend1")
        user.types("\x03")
        user.types("backends --pool nothing\r")
        assert user.shows(r"there is no pool 'nothing'")
        user.types("dance\r")
        assert user.shows(r"No such command 'dance'")
        user.types("quit\r")
        assert user.shows(r"Stop balancer.*\[y/N\]")
        user.types("n\r")
        user.types("exit\r")
        until(lambda: "exit" in (tmp_path / "l3dsr" / "balancer_history").read_text(), 5, "history")
    assert lab.alive("balancer")
    with terminal(*line(lab, "backend2", "shell"), **state) as user:
        user.types("quit\r")
        assert user.shows(r"Stop packetbridge.*\[y/N\]")
        user.types("y\r")
        assert user.shows(r"packetbridge stops")
    until(lambda: not lab.alive("backend2"), 10, "it has stopped")
    lab.script("start", "backend2")


def test_status_is_answered_while_the_packets_way_is_full(lab: Lab, report: Report) -> None:
    """Within a second, for each program; with as much load as there are processors for."""
    slowest = dict.fromkeys(PROGRAMS, 0.0)
    with saturated(lab) as load:
        for _ in range(10):
            for program in PROGRAMS:
                with client(lab, program) as asking:
                    began = time.monotonic()
                    assert asking.ask("status")["program"]
                    assert asking.all("flows", limit=1000) is not None
                    slowest[program] = max(slowest[program], time.monotonic() - began)
            time.sleep(0.1)
        assert load.poll() is None, "there was load all the time"
    words = ", ".join(f"{program} {1000 * worst:.0f} ms" for program, worst in slowest.items())
    report(f"status and flows under load, slowest of ten: {words}")
    assert max(slowest.values()) < 1


class saturated:
    """wrk on new connections and on standing ones, as fast as it goes."""

    def __init__(self, lab: Lab) -> None:
        options = ["-t1", f"-c{SATURATING}", "-d30s", "-H", "Connection: close"]
        self._command = lab.command("client", "wrk", *options, f"http://{VIP}/1k")

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._load = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        time.sleep(1)
        return self._load

    def __exit__(self, *_: object) -> None:
        self._load.kill()
        self._load.wait()


def test_a_stop_by_signal_ends_waiting_commands(lab: Lab) -> None:
    with client(lab) as waiting, download(lab, "20m", "1M"):
        pages = waiting.pages("trace", flow=CLIENT)
        assert next(pages), "it has begun"
        lab.script("restart", "balancer")
        with pytest.raises(ControlError, match="is gone"):
            while next(pages):
                pass
    assert socket_of(lab, "balancer").exists()
