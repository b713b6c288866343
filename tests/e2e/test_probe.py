"""`balancer probe` from the client's host: each fault is made, and named with its host and why."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clock import Clocks, settable_clocks
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, ROOT, SERVER1, VIP, Lab, namespace, until

pytestmark = pytest.mark.root

LONG = pytest.mark.soak  # what `make test` makes up: see tests/unit/test_probe.py
PROBE = str(ROOT / ".venv" / "bin" / "balancer")
ENDPOINTS = {
    "balancer": f"{VIP}:9310",
    "backend1": f"{BRIDGE1}:9320",
    "backend2": f"{BRIDGE2}:9320",
}
HOSTS_END, PEERS_END = "10.9.9.1", "10.9.9.2"
BALANCER, FIRST, HERE = f"balancer {VIP}", f"bridge {BRIDGE1}", "this host"


def probe(lab: Lab, path: str = "/1k", *options: str) -> dict[str, Any]:
    """What it says; bounded in time, and its exit code as its lines are. The programs that run have
    had time to start their agents."""
    for program, endpoint in ENDPOINTS.items():
        if lab.alive(program):
            until(partial(listens, lab, program, endpoint), 5, f"{endpoint} listens")
    begun = time.monotonic()
    command = [PROBE, "probe", f"http://{VIP}{path}", "--json", "--timeout", "2", *options]
    done = lab.result("client", *command)
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if said["ok"] else 1)
    assert time.monotonic() - begun < 12
    return said


def listens(lab: Lab, program: str, endpoint: str) -> bool:
    return endpoint in lab.run(program, "ss", "-Htln")


def faults(said: dict[str, Any], subject: str) -> str:
    """What is not ok of a host, with what mends it."""
    lines = [line for line in said["lines"] if line["verdict"] == "not ok"]
    return "\n".join(f"{x['found']} => {x['mend']}" for x in lines if x["subject"] == subject)


@pytest.fixture
def first(lab: Lab) -> str:
    """A path that leads to the first backend."""
    return lab.path_for("1k", "backend1")


# --- all is well ---


def test_all_is_well(lab: Lab, first: str) -> None:
    said = probe(lab, first)
    assert said["ok"]
    assert (said["request"]["status"], said["request"]["size"]) == (200, 1024)
    assert said["again"]["status"] == 200
    assert said["balancer"]["backend"] == "backend1"
    assert said["balancer"]["id"] == said["bridges"][BRIDGE1]["id"]
    assert said["bridges"][BRIDGE2] is None
    assert {line["verdict"] for line in said["lines"]} == {"ok"}


def test_endpoints_that_do_not_answer_are_not_judged(lab: Lab) -> None:
    """And the rest is."""
    said = probe(lab, "/1k", "--balancer", f"{VIP}:9")
    assert said["ok"]
    (line,) = [line for line in said["lines"] if line["verdict"] != "ok"]
    assert (line["verdict"], line["subject"]) == ("not judged", BALANCER)
    assert "connection refused" in line["found"]


@pytest.mark.parametrize(
    "words", [("ftp://192.168.33.10/",), ("http://192.168.33.10/", "--balancer", "x")]
)
def test_wrong_words(lab: Lab, words: tuple[str, ...]) -> None:
    done = lab.result("client", PROBE, "probe", *words)
    assert done.returncode == 2
    assert "right would be" in done.stderr


# --- the VIP ---


def test_no_balancer_runs(lab: Lab) -> None:
    lab.script("stop", "balancer")
    try:
        said = probe(lab)
        assert "none runs there" in faults(said, BALANCER)
        assert "systemctl start balancer" in faults(said, BALANCER)
    finally:
        lab.script("start", "balancer")
    assert probe(lab)["ok"]


def test_no_route_to_the_vip(lab: Lab) -> None:
    with route(lab, "client", "unreachable", VIP):
        said = probe(lab)
    assert f"has no route to {VIP}" in faults(said, HERE)


@LONG
def test_nobody_has_the_vip(lab: Lab) -> None:
    lab.run("balancer", "ip", "link", "set", "eth0", "arp", "off")
    lab.run("client", "ip", "neighbour", "flush", "all")
    try:
        said = probe(lab)
        assert f"nobody has {VIP}" in faults(said, BALANCER)
    finally:
        lab.run("balancer", "ip", "link", "set", "eth0", "arp", "on")
        lab.run("client", "ip", "neighbour", "flush", "all")
    assert probe(lab)["ok"]


def test_a_port_that_is_no_services(lab: Lab) -> None:
    done = lab.result("client", PROBE, "probe", f"http://{VIP}:81/", "--json")
    assert done.returncode == 1
    assert "no service at 192.168.33.10 port 81" in faults(json.loads(done.stdout), BALANCER)


@LONG
def test_a_balancer_that_stands_still(lab: Lab) -> None:
    """Its host and its agent are there."""
    os.kill(lab.pid("balancer"), signal.SIGSTOP)
    try:
        said = probe(lab)
    finally:
        os.kill(lab.pid("balancer"), signal.SIGCONT)
    assert "stands still" in faults(said, BALANCER)
    assert "systemctl restart balancer" in faults(said, BALANCER)


# --- reverse-path filters ---


@contextmanager
def asymmetric(lab: Lab, host: str, address: str, peer: str) -> Iterator[None]:
    """A second network, between a host and a peer: what the host sends to an address of the peer's
    goes that way, what comes from there does not; and its filters are strict."""
    ends = {host: HOSTS_END, peer: PEERS_END}
    links = [("name", "other", "netns", Path(namespace(each)).name) for each in ends]
    lab.run(host, "ip", "link", "add", *links[0], "type", "veth", "peer", *links[1])
    try:
        for each, own in ends.items():
            lab.run(each, "ip", "address", "add", f"{own}/24", "dev", "other")
            lab.run(each, "ip", "link", "set", "other", "up")
        (source, *_) = lab.run(host, "hostname", "-I").split()
        lab.run(host, "ip", "route", "add", address, "dev", "other", "src", source)
        settings = {f"net_ipv4_conf.{which}.rp_filter": n for which, n in (("all", 0), ("eth0", 1))}
        with lab.sysctl(host, **settings):
            yield
    finally:
        lab.run(host, "ip", "link", "delete", "other")


@LONG
def test_a_strict_filter_here(lab: Lab) -> None:
    with asymmetric(lab, "client", VIP, "balancer"):
        said = probe(lab)
        fault = faults(said, HERE)
        assert "reverse-path filter dropped" in fault
        assert "rp_filter is strict on eth0" in fault
        mends(lab, "client", said, HERE)
        assert probe(lab)["ok"]


@LONG
def test_a_strict_filter_on_the_balancers_host(lab: Lab, first: str) -> None:
    """Its endpoint is asked by the second network, as all else from there is dropped, too."""

    def also(text: str) -> str:
        return text.replace(f'["{VIP}:9310"]', f'["{VIP}:9310", "{HOSTS_END}:9310"]')

    with asymmetric(lab, "balancer", CLIENT, "client"), lab.configured(balancer=also):
        until(partial(listens, lab, "balancer", f"{HOSTS_END}:9310"), 5, "it listens there")
        said = probe(lab, first, "--balancer", HOSTS_END)
        assert "reverse-path filter dropped" in faults(said, BALANCER.replace(VIP, HOSTS_END))
        mends(lab, "balancer", said, BALANCER.replace(VIP, HOSTS_END))
        assert probe(lab, first)["ok"]


def test_a_strict_filter_on_the_bridges_host(lab: Lab, first: str) -> None:
    with asymmetric(lab, "backend1", CLIENT, "client"):
        said = probe(lab, first)
        assert "reverse-path filter dropped" in faults(said, FIRST)
        mends(lab, "backend1", said, FIRST)
        assert probe(lab, first)["ok"]


def mends(lab: Lab, host: str, said: dict[str, Any], subject: str) -> None:
    """Run the command that is printed for a host's fault there."""
    (mend, *_) = [
        line["mend"]
        for line in said["lines"]
        if line["subject"] == subject and line["verdict"] == "not ok" and line["mend"]
    ]
    lab.run(host, "sh", "-c", mend.partition(": ")[2] if mend.startswith("on ") else mend)


# --- between balancer and bridge ---


@contextmanager
def rule(lab: Lab, host: str, table: str, *words: str) -> Iterator[None]:
    chain, *rest = words
    lab.run(host, "iptables", "-t", table, "-I", chain, "1", *rest)
    try:
        yield
    finally:
        lab.run(host, "iptables", "-t", table, "-D", chain, *rest)


def test_a_dscp_that_is_changed(lab: Lab, first: str) -> None:
    """The other bridge serves it a second later, which is not ok."""
    change = ("POSTROUTING", "-d", BRIDGE1, "-j", "DSCP", "--set-dscp", "0")
    with rule(lab, "balancer", "mangle", *change):
        said = probe(lab, first)
    assert said["request"]["status"] == 200
    assert said["balancer"]["backend"] == "backend2"
    assert "packets reach its host, but not with DSCP 1" in faults(said, FIRST)
    assert "balancer doctor" in faults(said, FIRST)
    assert faults(said, f"bridge {BRIDGE2}") == ""


@LONG
def test_handoffs_that_are_lost(lab: Lab, first: str) -> None:
    with rule(lab, "backend1", "raw", "PREROUTING", "-s", CLIENT, "-d", BRIDGE1, "-j", "DROP"):
        said = probe(lab, first)
    assert "no handoff reached it" in faults(said, FIRST)


@LONG
def test_no_route_to_the_bridge(lab: Lab, first: str) -> None:
    with route(lab, "balancer", "unreachable", BRIDGE1):
        said = probe(lab, first)
    assert f"no route to the bridge {BRIDGE1}" in faults(said, BALANCER)


@LONG
def test_no_forwarding(lab: Lab, first: str) -> None:
    with lab.sysctl("balancer", net_ipv4_ip_forward=0):
        said = probe(lab, first)
    assert "forwards nothing" in faults(said, BALANCER)
    assert "net.ipv4.ip_forward=1" in faults(said, BALANCER)


def test_another_key(lab: Lab, first: str) -> None:
    key = lab.directory / "etc" / "other.key"
    lab.run("balancer", PROBE, "keygen", str(key))

    def other(text: str) -> str:
        return text.replace("/etc/key", "/etc/other.key")

    with lab.configured(backend1=other):
        said = probe(lab, first)
    key.unlink()
    assert "another key" in faults(said, FIRST)
    assert "systemctl reload packetbridge" in faults(said, FIRST)


@pytest.fixture
def clocks(lab: Lab) -> Iterator[Clocks]:
    with settable_clocks(lab, "backend1") as made:
        yield made


@LONG
def test_another_clock(lab: Lab, clocks: Clocks, first: str) -> None:
    clocks.set(100, "backend1")
    said = probe(lab, first)
    assert "its clock is 100 s ahead of the balancer's" in faults(said, FIRST)
    assert "timedatectl set-ntp true" in faults(said, FIRST)


@LONG
def test_no_bridge_runs(lab: Lab, first: str) -> None:
    lab.script("stop", "backend1")
    try:
        said = probe(lab, first)
    finally:
        lab.script("start", "backend1")
    assert "no packetbridge runs there" in faults(said, FIRST)


# --- behind the bridge ---


@contextmanager
def route(lab: Lab, host: str, kind: str, address: str) -> Iterator[None]:
    lab.run(host, "ip", "route", "add", kind, address)
    try:
        yield
    finally:
        lab.run(host, "ip", "route", "delete", kind, address)


def test_no_route_back_to_the_client(lab: Lab, first: str) -> None:
    with route(lab, "backend1", "unreachable", CLIENT):
        said = probe(lab, first)
        fault = faults(said, FIRST)
        assert f"no route to the client {CLIENT}" in fault
    assert probe(lab, first)["ok"]


def test_responses_that_are_lost(lab: Lab, first: str) -> None:
    """By who takes packets from the VIP for forged ones unless the balancer sends them."""
    sender = ("-m", "mac", "--mac-source", lab.link_address("backend1").hex(":"))
    with rule(lab, "client", "raw", "PREROUTING", "-s", VIP, *sender, "-j", "DROP"):
        said = probe(lab, first)
    assert not said["ok"], said
    assert "lost on the way here" in faults(said, FIRST)


def test_a_server_that_is_down(lab: Lab, first: str) -> None:
    """The other serves in its place, and this one is named."""
    lab.script("stop", "nginx-backend1")
    try:
        said = probe(lab, first)
        assert said["balancer"]["backend"] == "backend2"
        assert f"server {SERVER1}:80 refuses connections" in faults(said, FIRST)
        lab.script("stop", "nginx-backend2")
        said = probe(lab, first)
        assert said["request"]["status"] == 503
        assert "answered itself, 503" in faults(said, BALANCER)
        for bridge in (BRIDGE1, BRIDGE2):
            assert "refuses connections" in faults(said, f"bridge {bridge}")
    finally:
        lab.script("restart", "nginx-backend1")
        lab.script("restart", "nginx-backend2")
