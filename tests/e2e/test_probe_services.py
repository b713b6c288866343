"""`balancer probe` of services that are not HTTP: TLS by name, TCP that nobody reads, and UDP. Each
fault is made, and named with its host and why; by three probes at a time, one of each service.

The data path is the lab's: LAB_DATAPATH=ebpf has all this on the other one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.adapters.control.client import ControlClient
from tests.e2e import ssh
from tests.e2e.controlled import client
from tests.e2e.datagrams import PORT as UDP_PORT
from tests.e2e.datagrams import Servers, serving
from tests.e2e.datagrams import entry as udp_entry
from tests.e2e.datagrams import service as udp_service
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.pooled import extended, pool
from tests.e2e.test_probe import ENDPOINTS, PROBE, faults, listens, route, rule
from tests.e2e.test_tls import PORT as TLS_PORT
from tests.e2e.test_tls import entry as tls_entry
from tests.e2e.test_tls import service as tls_service

pytestmark = pytest.mark.root

LONG = pytest.mark.soak
NAME = "a.example"
BALANCER, FIRST, SECOND = f"balancer {VIP}", f"bridge {BRIDGE1}", f"bridge {BRIDGE2}"
HTTPS, TCP, UDP = "https", "tcp", "udp"
WORDS = {
    HTTPS: (f"https://{NAME}/1k", "--to", VIP),
    TCP: (f"tcp://{VIP}:{ssh.PORT}",),
    UDP: (f"udp://{VIP}:{UDP_PORT}", "--send", "hello", "--timeout", "1"),
}
SERVER = {
    HTTPS: f"{SERVER1}:{TLS_PORT}",
    TCP: f"{SERVER1}:{ssh.PORT}",
    UDP: f"{SERVER1}:{UDP_PORT}",
}
POOLS = {HTTPS: "names", TCP: "ssh", UDP: "p"}
SERVICES = (
    tls_service("names", TLS_PORT)
    + pool("names")
    + f"""
[[services]]
name = "ssh"
vip = "{VIP}"
port = {ssh.PORT}
dscp = 1
inspect = "none"
pool = "ssh"
"""
    + pool("ssh")
    + udp_service()
    + pool("p")
)

Said = dict[str, Any]


def ways(bridge: str, server: str) -> str:
    """A bridge's."""
    of_ssh = ssh.ENTRY.format(bridge=bridge, port=ssh.PORT, server=server, at=ssh.PORT, more="")
    return tls_entry(bridge, server) + of_ssh + udp_entry(bridge, server)


CHANGES = {"backend1": ways(BRIDGE1, SERVER1), "backend2": ways(BRIDGE2, SERVER2)} | {
    "balancer": SERVICES
}


def certificate(lab: Lab, name: str) -> Path:
    """A backend's own."""
    return lab.directory / "etc" / f"tls-{name}" / f"{NAME}.crt"


@dataclass(frozen=True)
class Place:
    """The lab with these services, of which all lead the client to the first backend."""

    lab: Lab
    shells: ssh.Client
    datagrams: Servers

    def probe(self, *words: str) -> Said:
        """What one says; bounded in time, and its exit code as its lines are."""
        begun = time.monotonic()
        done = self.lab.result("client", PROBE, "probe", "--json", "--timeout", "2", *words)
        assert done.stderr == ""
        said: Said = json.loads(done.stdout)
        assert done.returncode == (0 if said["ok"] else 1)
        assert time.monotonic() - begun < 12
        return said

    def words(self, scheme: str) -> tuple[str, ...]:
        """For TLS both servers' certificates will do: a probe needs one connection."""
        if scheme != HTTPS:
            return WORDS[scheme]
        both = self.lab.directory / "run" / "both.crt"
        files = (certificate(self.lab, name) for name in ("backend1", "backend2"))
        both.write_text("".join(file.read_text() for file in files))
        return *WORDS[HTTPS], "--cacert", str(both)

    def probes(self, schemes: tuple[str, ...] = (HTTPS, TCP, UDP)) -> dict[str, Said]:
        """What one of each says, all at once."""
        for program, endpoint in ENDPOINTS.items():
            if self.lab.alive(program):
                until(partial(listens, self.lab, program, endpoint), 5, f"{endpoint} listens")
        said = self.at_once(*(self.words(scheme) for scheme in schemes))
        return dict(zip(schemes, said, strict=True))

    def at_once(self, *probes: tuple[str, ...]) -> list[Said]:
        """What each says."""
        with ThreadPoolExecutor() as threads:
            return list(threads.map(lambda words: self.probe(*words), probes))

    @contextmanager
    def without_servers(self) -> Iterator[None]:
        """The first backend's do not run."""
        with ExitStack() as stack:
            self.lab.script("stop", "nginx-backend1")
            stack.callback(self.lab.script, "restart", "nginx-backend1")
            self.shells.stop("backend1")
            stack.callback(self.shells.start, "backend1")
            self.datagrams.shut("backend1")
            stack.callback(self.datagrams.open, "backend1")
            yield


@pytest.fixture(scope="module")
def place(running_lab: Lab) -> Iterator[Place]:
    lab = running_lab
    with ExitStack() as stack:
        found = Place(lab, stack.enter_context(ssh.servers(lab)), stack.enter_context(serving(lab)))
        if lab.in_kernel:  # which has room for datagrams only if a bridge starts with such a way
            changes = {
                name: partial(lambda more, text: text + more, x) for name, x in CHANGES.items()
            }
            stack.enter_context(lab.configured(**changes))
        else:
            for program, more in CHANGES.items():
                stack.enter_context(extended(lab, program, more))
        said = found.probes()
        assert {x["balancer"]["backend"] for x in said.values()} == {"backend1"}
        yield found


def found_of(said: Said, subject: str) -> str:
    """What is said of a subject."""
    return "\n".join(line["found"] for line in said["lines"] if line["subject"] == subject)


def served_elsewhere(said: dict[str, Said]) -> None:
    """Connections are, a second later, which is not ok; a client's datagrams are not."""
    assert said[UDP]["datagram"]["answered"] is None
    for scheme in (HTTPS, TCP):
        assert said[scheme]["balancer"]["backend"] == "backend2"
        assert "passed over backend1" in faults(said[scheme], FIRST)
        assert faults(said[scheme], SECOND) == ""


def forget(asking: ControlClient) -> None:
    """Have the balancer choose anew for who sends datagrams."""
    for mapping in asking.all("flows", protocol="udp"):
        list(asking.all("kill", flow=mapping["id"]))


# --- all is well ---


def test_a_tls_service(lab: Lab, place: Place) -> None:
    said = place.probe(*WORDS[HTTPS], "--cacert", str(certificate(lab, "backend1")))
    assert said["ok"], said["lines"]
    assert {line["verdict"] for line in said["lines"]} == {"ok"}
    assert said["tls"]["version"] == "TLSv1.3"
    assert [said[which]["status"] for which in ("request", "again")] == [200, 200]
    assert said["request"]["size"] == 1024
    assert said["balancer"]["id"] == said["bridges"][BRIDGE1]["id"]
    assert found_of(said, "certificate") == f"fits {NAME}"


def test_a_certificate_that_does_not_fit(lab: Lab, place: Place) -> None:
    """The rest is asked all the same; who says whose it must be has it judged."""
    said = place.probe(*WORDS[HTTPS])
    (line,) = [line for line in said["lines"] if line["verdict"] != "ok"]
    assert (line["verdict"], line["subject"]) == ("warning", "certificate")
    assert "self-signed" in line["found"]
    said = place.probe(*WORDS[HTTPS], "--cacert", str(certificate(lab, "backend2")))
    assert f"does not fit {NAME}" in faults(said, "certificate")
    assert said["request"]["status"] == 200


def test_a_server_that_speaks_first_and_one_of_datagrams(place: Place) -> None:
    said = place.probes((TCP, UDP))
    assert {line["verdict"] for each in said.values() for line in each["lines"]} == {"ok"}
    assert "'SSH-2.0-OpenSSH" in found_of(said[TCP], "greeting")
    assert "with the server" in found_of(said[TCP], "handshake")
    assert "steered to ssh/backend1" in found_of(said[TCP], BALANCER)
    assert said[TCP]["balancer"]["id"] == said[TCP]["bridges"][BRIDGE1]["id"]
    assert bytes.fromhex(said[UDP]["datagram"]["data"]) == b"backend1 hello"
    assert "'backend1 hello'" in found_of(said[UDP], "answer")
    assert "steered to p/backend1" in found_of(said[UDP], BALANCER)
    assert said[UDP]["bridges"][BRIDGE1]["answered"]
    assert said[UDP]["bridges"][BRIDGE1]["server"] == SERVER[UDP]
    assert said[UDP]["bridges"][BRIDGE2] is None


# --- faults, as those of HTTP ---


def test_no_service(place: Place) -> None:
    of_udp = (f"udp://{VIP}:80", "--send", "hex:0aff")
    said = place.at_once((f"https://{VIP}:444/",), (f"tcp://{VIP}:23",), of_udp)
    expected = ("no service", "port 444"), ("no service", "port 23"), ("no UDP service", "port 80")
    for each, (what, where) in zip(said, expected, strict=True):
        assert f"it has {what} at {VIP} {where}" in faults(each, BALANCER)


def test_no_bridge_runs(lab: Lab, place: Place) -> None:
    lab.script("stop", "backend1")
    try:
        said = place.probes()
    finally:
        lab.script("start", "backend1")
    for each in said.values():
        assert "no packetbridge runs there" in faults(each, FIRST)
    served_elsewhere(said)


def test_a_dscp_that_is_changed(lab: Lab, place: Place) -> None:
    """Of a client that the kernel knows the rule sees nothing."""
    change = ("POSTROUTING", "-d", BRIDGE1, "-j", "DSCP", "--set-dscp", "0")
    with client(lab) as asking:
        forget(asking)
    with rule(lab, "balancer", "mangle", *change):
        said = place.probes()
    for each in said.values():
        assert "packets reach its host, but not with DSCP 1" in faults(each, FIRST)
    served_elsewhere(said)


def test_servers_that_refuse(place: Place) -> None:
    """By RST, which a bridge takes for itself where it has shaken hands, or by ICMP."""
    with place.without_servers():
        said = place.probes()
    for scheme, each in said.items():
        what = "datagrams" if scheme == UDP else "connections"
        assert f"server {SERVER[scheme]} refuses {what}" in faults(each, FIRST)
    assert said[HTTPS]["request"]["status"] == 200
    assert "connection refused" in found_of(said[TCP], "handshake")
    assert "refused (ICMP of 192.168.33.10)" in found_of(said[UDP], "answer")


def test_servers_that_are_silent(lab: Lab, place: Place) -> None:
    with ExitStack() as stack:
        for scheme, server in SERVER.items():
            port = server.partition(":")[2]
            silent = ("-p", "udp" if scheme == UDP else "tcp", "-d", SERVER1, "--dport", port)
            stack.enter_context(rule(lab, "backend1", "filter", "INPUT", *silent, "-j", "DROP"))
        said = place.probes()
    for scheme, each in said.items():
        what = "has the datagram, and has not answered" if scheme == UDP else "does not answer"
        assert f"server {SERVER[scheme]} {what}" in faults(each, FIRST)
    served_elsewhere(said)


def test_no_route_back_to_the_client(lab: Lab, place: Place) -> None:
    with route(lab, "backend1", "unreachable", CLIENT):
        said = place.probes()
    for each in said.values():
        assert f"no route to the client {CLIENT}" in faults(each, FIRST)


def test_nobody_takes_new_ones(lab: Lab, place: Place) -> None:
    """All backends are drained; who has a mapping would keep it."""
    backends = [f"{each}/{name}" for each in POOLS.values() for name in ("backend1", "backend2")]
    with client(lab) as asking:
        for each in backends:
            asking.ask("drain", backend=each)
        try:
            assert place.probe(*WORDS[UDP])["ok"]
            forget(asking)
            said = place.probes()
        finally:
            for each in backends:
                asking.ask("ready", backend=each)
    for scheme, probed in said.items():
        assert "no backend could take the" in faults(probed, BALANCER)
        for bridge, name in ((FIRST, "backend1"), (SECOND, "backend2")):
            assert f"{POOLS[scheme]}/{name} is drain" in faults(probed, bridge)


# --- what else there is ---


def test_another_protocol_than_the_services(place: Place) -> None:
    """HTTP to a service of TLS; to a server of SSH; and no word to who waits for one."""
    of_tls, of_ssh, silent = place.at_once(
        (f"http://{VIP}:{TLS_PORT}/",),
        (f"http://{VIP}:{ssh.PORT}/",),
        (f"tcp://{VIP}:{TLS_PORT}", "--timeout", "0.5"),
    )
    assert 'reads something else (inspect = "tls")' in faults(of_tls, BALANCER)
    assert "in other words than asked for" in faults(of_ssh, FIRST)
    (line,) = [line for line in silent["lines"] if line["verdict"] != "ok"]
    assert (line["verdict"], line["subject"]) == ("not judged", "greeting")
    assert "https://" in line["found"]


@LONG
def test_a_way_in_that_expects_handoffs(lab: Lab, place: Place) -> None:
    with unread(lab, "backend1"):
        said = place.probe(*WORDS[TCP])
    assert "right would be handoff = false" in faults(said, FIRST)


@contextmanager
def unread(lab: Lab, program: str) -> Iterator[None]:
    """A bridge whose ways in all take handoffs."""

    def changed(text: str) -> str:
        return text.replace("handoff = false", "handoff = true")

    with lab.configured(**{program: changed}):
        yield


@LONG
def test_responses_that_are_lost(lab: Lab, place: Place) -> None:
    """As those of HTTP are in tests/e2e/test_probe.py."""
    sender = ("-m", "mac", "--mac-source", lab.link_address("backend1").hex(":"))
    with rule(lab, "client", "raw", "PREROUTING", "-s", VIP, *sender, "-j", "DROP"):
        said = place.probes((HTTPS, UDP))
    for each in said.values():
        assert "lost on the way here" in faults(each, FIRST)


@LONG
def test_no_balancer_runs(lab: Lab, place: Place) -> None:
    lab.script("stop", "balancer")
    try:
        for each in place.probes().values():
            assert "none runs there" in faults(each, BALANCER)
    finally:
        lab.script("start", "balancer")
