"""Every command on the pages does what they say. What is about running the programs is typed here,
in a lab that `make lab` makes; what runs the others is in tests/readme/elsewhere.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import web
from tests.e2e.lab import LAB, NAME, PROGRAMS, Lab, until
from tests.readme.elsewhere import ELSEWHERE, ON_DEMAND
from tests.readme.pages import ROOT, blocks, commands
from tests.readme.reader import Reader

BY_THE_LAB = ("make lab", "make lab-down")
READY = " ready: "
KILLED = "kill -9 $(cat .lab/run/balancer.pid)"
TERMINATED = "kill -TERM $(cat .lab/run/balancer.pid)"
START = "provisioning/lab.sh start balancer"
PART = 4 << 20  # bytes read between two events

Test = Callable[..., None]


def types(*typed: str) -> Callable[[Test], Test]:
    """The commands of the pages that a test types."""

    def mark(test: Test) -> Test:
        return pytest.mark.root(pytest.mark.types(*typed)(test))

    return mark


# --- trying ---


@types("apt-get install -y make", "make bpf", "make demo")
def test_the_demo(reader: Reader, tmp_path: Path) -> None:
    waiting = tmp_path / "apt.conf"
    waiting.write_text('DPkg::Lock::Timeout "60";\n')  # for whoever installs something now
    reader.types("apt-get install -y make", APT_CONFIG=str(waiting))
    reader.types("make bpf")
    name, directory = f"{NAME}-demo", LAB / "demo"
    said = reader.types("make demo", LAB_NAME=name, LAB_DIR=str(directory))
    for statement in ("both backends were used", "of it passed the balancer", "both saw"):
        assert re.search(rf"ok\W.*{statement}", said), said
    assert "lab is down" in said
    assert not list(Path("/run/netns").glob(f"{name}-*"))


@types("make demo-udp")
def test_the_demo_of_udp(reader: Reader) -> None:
    name, directory = f"{NAME}-demo", LAB / "demo"
    said = reader.types("make demo-udp", LAB_NAME=name, LAB_DIR=str(directory))
    for statement in (
        "one backend for all of its datagrams",
        "all three backends were used",
        "none of the answers",
        "the clients' own addresses",
        r"the \d clients of three moved",
        r"the \d others stayed",
        "only the one who went on is remembered",
    ):
        assert re.search(rf"ok\W.*{statement}", said), said
    assert "FAIL" not in said
    assert "lab is down" in said
    assert not list(Path("/run/netns").glob(f"{name}-*"))


@types(
    "nsenter --net=/run/netns/l3dsr-client curl -i http://192.168.33.10/demo/page-1.html",
    "make load-test",
    "make lab-status",
)
def test_looking_around(lab: Lab, reader: Reader) -> None:
    curl, load, status = reader.told_in_order
    answer = reader.types(curl)
    assert "HTTP/1.1 200 OK" in answer
    assert re.search("X-Backend: backend[12]", answer)
    rows = re.findall(r"^(through|direct) .* (\d+)$", reader.types(load), re.MULTILINE)
    assert [row for row, _ in rows] == ["through", "through", "direct", "direct"]
    assert {errors for _, errors in rows} == {"0"}
    assert len(re.findall("running, pid", reader.types(status))) == 5


@types(
    "balancer probe http://192.168.33.10/",
    "nsenter --net=/run/netns/l3dsr-balancer iptables -t mangle -A POSTROUTING -d 192.168.33.20 "
    "-j DSCP --set-dscp 0",
    "nsenter --net=/run/netns/l3dsr-client .venv/bin/balancer probe "
    "http://192.168.33.10/demo/page-3.html || true",
    "nsenter --net=/run/netns/l3dsr-balancer iptables -t mangle -F POSTROUTING",
)
def test_a_probe_names_what_is_wrong(lab: Lab, reader: Reader) -> None:
    well, change, ill, back = reader.told_in_order
    until(lambda: ":9310" in lab.run("balancer", "ss", "-Htln"), 5, "its endpoint is there")
    assert "not ok" not in reader.types(well, "client")
    reader.types(change)
    said = reader.types(ill)
    reader.types(back)
    (example,) = [block.text for block in blocks("") if block.page.name == "probe.md"]
    assert _without_numbers(said) == _without_numbers(example)


def _without_numbers(text: str) -> str:
    """Of what differs from one probe to the next."""
    text = re.sub(r"flow [0-9a-f]{16}|192\.168\.33\.1:\d+|[\d.]+ ms", "…", text)
    return re.sub(r"sent \d+ times|reset \d+ packets", "…", text).strip()


# --- setting up ---


@types("balancer keygen")
def test_a_host_without_a_key_gets_one(reader: Reader) -> None:
    key = reader.etc("client2") / "key"
    assert "copy of this file" in reader.types("balancer keygen", "client2")
    assert key.stat().st_mode & 0o777 == 0o600


@types("balancer check", "packetbridge check", "balancer doctor")
def test_both_programs_find_the_lab_well(lab: Lab, reader: Reader) -> None:
    for command, host in (("balancer check", "balancer"), ("packetbridge check", "backend1")):
        assert reader.types(command, host).splitlines()[-1] == "the configuration is valid"
    told = reader.types("balancer doctor", "balancer")
    assert re.findall("^(not ok|warning)", told, re.MULTILINE) == []
    for subject in ("DSCP 1 to 192.168.33.20", "clock of 192.168.33.21"):
        assert re.search(rf"^ok +{subject} ", told, re.MULTILINE), told


@types(
    "packetbridge --address 192.168.33.20 --balancer 1:192.168.33.10 --backend 192.168.33.30:80",
    "balancer --vip 192.168.33.10 --port 80 --dscp 1 --bridge 192.168.33.20 --bridge 192.168.33.21",
)
def test_flags_instead_of_files(lab: Lab, reader: Reader) -> None:
    bridge, balancer = reader.told_in_order
    lab.script("stop", "balancer")
    lab.script("stop", "backend1")
    for host in ("balancer", "backend1"):
        for file in reader.etc(host).glob("*.toml"):
            file.rename(file.with_suffix(".aside"))
    try:
        with (
            reader.leaves_running(bridge, "backend1", READY),
            reader.leaves_running(balancer, "balancer", READY),
        ):
            answers = [lab.curl(f"/small/{number}") for number in range(1, 17)]
        assert {answer.status for answer in answers} == {200}
        assert {answer.backend for answer in answers} == {"backend1", "backend2"}
    finally:
        for host in ("balancer", "backend1"):
            for file in reader.etc(host).glob("*.aside"):
                file.rename(file.with_suffix(".toml"))


# --- operating ---


@types("kill -USR2 $(cat .lab/run/balancer.pid)")
def test_counters_are_written(lab: Lab, reader: Reader) -> None:
    start = lab.log_end("balancer")
    assert lab.curl("/1k").status == 200
    reader.types("kill -USR2 $(cat .lab/run/balancer.pid)")
    until(
        lambda: re.search(r" counters .*\bhandoffs=\d", lab.log("balancer", start)), 5, "counters"
    )


@types(
    "balancer status",
    "balancer backends",
    "balancer flows --limit 20",
    "balancer flows --json --state handed",
    "balancer explain GET 'http://192.168.33.10/a?b=1' --header 'Cookie: user=7' "
    "--source 192.0.2.1",
    "balancer drain web/backend1",
    "balancer ready web/backend1",
    "balancer weight web/backend1 2",
    "balancer log-level debug",
)
def test_a_running_balancer_takes_commands(lab: Lab, reader: Reader) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200
        shown = {command: reader.types(command, "balancer") for command in reader.told_in_order}
    lab.script("restart", "balancer")
    status, backends, flows, as_json, explained, *_ = shown.values()
    assert "192.168.33.10:80" in status
    assert "backend2" in backends
    assert "192.168.33.1:" in flows
    assert json.loads(as_json)[0]["state"] == "handed"
    assert "path=/a" in explained
    assert lab.curl("/1k").status == 200


@types("packetbridge status", "packetbridge backends", "packetbridge flows")
def test_a_running_bridge_takes_commands(lab: Lab, reader: Reader) -> None:
    for command in reader.told_in_order:
        assert "192.168.33." in reader.types(command, "backend1") or "flows" in command


@types(
    "tcpdump -i eth0 -c 40 -U --immediate-mode -w l3dsr.pcap tcp",
    "balancer decode l3dsr.pcap",
)
def test_a_capture_is_explained(lab: Lab, reader: Reader) -> None:
    capture, decode = reader.told_in_order
    with reader.leaves_running(capture, "balancer", "listening on") as running:
        for _ in range(10):
            assert lab.curl("/1k").status == 200
        assert running.wait(10) == 0
    told = reader.types(decode, "balancer")
    assert re.search(r"balancer -> bridge .* HANDOFF .* GET /1k$", told, re.MULTILINE), told


@types(TERMINATED, START)
def test_an_upgrade_drops_no_flow(lab: Lab, reader: Reader) -> None:
    """A download goes on while the program is not there, and new connections wait for it."""
    with lab.connect() as tcp:
        tcp.sendall(web.request("/100m"))
        size = _read(tcp.recv, PART)
        reader.types(TERMINATED)
        until(lambda: not lab.alive("balancer"), 5, "it ends")
        size += _read(tcp.recv, PART)
        reader.types(START)
        tcp.sendall(web.request("/1k", close=True))
        size += _read(tcp.recv, sys.maxsize)
    assert size > (100 << 20) + 1024
    assert lab.counters("balancer")["flows_adopted"] >= 1
    assert lab.curl("/1k").status == 200


@types("balancer keygen --add", "balancer keygen --switch", "balancer keygen --drop")
def test_the_key_is_replaced(lab: Lab, reader: Reader) -> None:
    """Under load, in any order: tests/e2e/test_key_rotation.py. `systemctl reload` is SIGHUP."""
    key, master = lab.directory / "etc" / "key", reader.etc("balancer") / "key"
    before = key.read_text()
    for command in reader.told_in_order:
        reader.types(command, "balancer")
        shutil.copy(master, key)
        for program in PROGRAMS:
            reader.tells(program, signal.SIGHUP, "SIGHUP: keys: ")
        assert lab.curl("/1k").status == 200
    assert len(key.read_text().split()) == 1
    assert key.read_text() != before


@types(KILLED, START)
def test_the_kernel_goes_on_without_the_program(lab: Lab, reader: Reader) -> None:
    with lab.connect() as tcp:
        for typed in (KILLED, START):
            tcp.sendall(web.request("/1k"))
            assert web.response(tcp).status == 200
            reader.types(typed)
            until(lambda: lab.alive("balancer") == (typed == START), 5, typed)  # noqa: B023
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200


@types("balancer flush", "packetbridge flush", "provisioning/lab.sh restart balancer")
def test_what_is_left_is_removed(lab: Lab, reader: Reader) -> None:
    """Each program then starts as ever."""
    for program, command in (("balancer", "balancer flush"), ("backend1", "packetbridge flush")):
        os.kill(lab.pid(program), signal.SIGKILL)
        until(lambda: not lab.alive(program), 5, "it ends")  # noqa: B023
        assert any("L3DSR" in rule for rule in lab.rules(program))
        assert "nothing of" in reader.types(command, program)
        assert not any("L3DSR" in rule for rule in lab.rules(program))
    lab.script("start", "backend1")
    reader.types("provisioning/lab.sh restart balancer")
    assert lab.curl("/1k").status == 200


def _read(receive: Callable[[int], bytes], most: int) -> int:
    """Bytes read until there are so many, or until the end."""
    size = 0
    while size < most and (part := receive(min(most - size, 1 << 20))):
        size += len(part)
    return size


# --- the others ---


def test_every_command_is_run() -> None:
    typed = set(BY_THE_LAB)
    for test in globals().values():
        for mark in getattr(test, "pytestmark", []):
            typed |= set(mark.args) if mark.name == "types" else set()
    named = ELSEWHERE.keys() | ON_DEMAND
    assert commands() - typed - named == set(), "add a test, or say what runs them"
    assert (typed | named) - commands() == set(), "no page says these any more"
    assert not typed & named
    assert not ELSEWHERE.keys() & ON_DEMAND


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_runs_a_command_is_there(command: str) -> None:
    file, words = ELSEWHERE[command]
    assert words in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [*sorted(ON_DEMAND), *BY_THE_LAB])
def test_a_target_is_there(command: str) -> None:
    found = re.search(r"\bmake ([a-z-]+)", command)
    assert found, "only targets run on demand"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{found[1]}:.* ## \S", makefile, re.MULTILINE)
