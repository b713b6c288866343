"""`balancer probe` of services that are not HTTP, on both data paths: TLS by name, TCP that nobody
reads, and UDP; each fault is made, and named with its host and why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import ssh
from tests.e2e.controlled import told
from tests.e2e.datagrams import PORT as UDP_PORT
from tests.e2e.datagrams import Servers, serving
from tests.e2e.datagrams import entry as udp_entry
from tests.e2e.datagrams import service as udp_service
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.pooled import BOTH, pool
from tests.e2e.test_probe import ENDPOINTS, PROBE, faults, listens, route, rule
from tests.e2e.test_tls import PORT as TLS_PORT
from tests.e2e.test_tls import entry as tls_entry
from tests.e2e.test_tls import service as tls_service

pytestmark = pytest.mark.root

LONG = pytest.mark.soak
NAME, BALANCER = "a.example", f"balancer {VIP}"
BRIDGES = {"backend1": BRIDGE1, "backend2": BRIDGE2}
SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
OTHER = {"backend1": "backend2", "backend2": "backend1"}
SCHEMES = ("https", "tcp", "udp")
WORDS = {
    "https": (f"https://{NAME}/1k", "--to", VIP),
    "tcp": (f"tcp://{VIP}:{ssh.PORT}",),
    "udp": (f"udp://{VIP}:{UDP_PORT}", "--send", "hello"),
}
POOLS = {"https": "names", "tcp": "ssh", "udp": "p"}
PORTS = {"https": TLS_PORT, "tcp": ssh.PORT, "udp": UDP_PORT}
SERVICES = (
    tls_service("names", TLS_PORT)
    + pool("names")
    + pool("ssh")
    + f"""
[[services]]
name = "ssh"
vip = "{VIP}"
port = {ssh.PORT}
dscp = 1
inspect = "none"
pool = "ssh"
"""
    + udp_service()
    + pool("p", BOTH)
)


@dataclass(frozen=True)
class Place:
    """The lab with all these services on a data path; ``home`` is the backend of a scheme's probe
    from the client's host."""

    lab: Lab
    path: str
    shells: ssh.Client
    datagrams: Servers
    home: dict[str, str]

    def probe(self, scheme: str, *options: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
        """What it says; bounded in time, and its exit code as its lines are."""
        for program, endpoint in ENDPOINTS.items():
            if self.lab.alive(program):
                until(partial(listens, self.lab, program, endpoint), 5, f"{endpoint} listens")
        begun = time.monotonic()
        asked = words or WORDS[scheme]
        command = [PROBE, "probe", *asked, "--json", "--timeout", "2", *options]
        done = self.lab.result("client", *command)
        assert done.stderr == ""
        said: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if said["ok"] else 1)
        assert time.monotonic() - begun < 12
        return said

    def server(self, scheme: str) -> str:
        """ADDRESS:PORT of the home's server."""
        return f"{SERVERS[self.home[scheme]]}:{PORTS[scheme]}"

    def at_home(self, said: dict[str, Any], scheme: str) -> str:
        """What is not ok of the home's bridge."""
        return faults(said, f"bridge {BRIDGES[self.home[scheme]]}")

    @contextmanager
    def serverless(self, scheme: str, name: str) -> Iterator[None]:
        """A backend whose server does not run."""
        stop: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "https": (
                partial(self.lab.script, "stop", f"nginx-{name}"),
                partial(self.lab.script, "restart", f"nginx-{name}"),
            ),
            "tcp": (partial(self.shells.stop, name), partial(self.shells.start, name)),
            "udp": (partial(self.datagrams.shut, name), partial(self.datagrams.open, name)),
        }
        stopping, starting = stop[scheme]
        stopping()
        try:
            yield
        finally:
            starting()


def both(bridge: str, server: str) -> str:
    """A bridge's ways in."""
    of_ssh = ssh.ENTRY.format(bridge=bridge, port=ssh.PORT, server=server, at=ssh.PORT, more="")
    return tls_entry(bridge, server) + of_ssh + udp_entry(bridge, server)


@pytest.fixture(scope="module", params=["nfqueue", "ebpf"])
def place(running_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Place]:
    def changed(more: str) -> Callable[[str], str]:
        return lambda text: text.replace(f'"{lab.datapath}"', f'"{request.param}"') + more

    lab = running_lab
    with ExitStack() as stack:
        shells = stack.enter_context(ssh.servers(lab))
        datagrams = stack.enter_context(serving(lab))
        with lab.configured(
            balancer=changed(SERVICES),
            backend1=changed(both(BRIDGE1, SERVER1)),
            backend2=changed(both(BRIDGE2, SERVER2)),
        ):
            home: dict[str, str] = {}
            found = Place(lab, request.param, shells, datagrams, home)
            home |= {scheme: found.probe(scheme)["balancer"]["backend"] for scheme in SCHEMES}
            yield found


# --- all is well ---


def test_a_tls_service(lab: Lab, place: Place) -> None:
    home = place.home["https"]
    authority = lab.directory / "etc" / f"tls-{home}" / f"{NAME}.crt"
    said = place.probe("https", "--cacert", str(authority))
    assert said["ok"]
    assert {line["verdict"] for line in said["lines"]} == {"ok"}
    assert said["tls"]["version"] == "TLSv1.3"
    assert [said[which]["status"] for which in ("request", "again")] == [200, 200]
    assert said["balancer"]["id"] == said["bridges"][BRIDGES[home]]["id"]
    assert found_of(said, "certificate") == f"fits {NAME}"


def test_a_certificate_that_does_not_fit(lab: Lab, place: Place) -> None:
    """The rest is asked all the same; who says whose it must be has it judged."""
    said = place.probe("https")
    (line,) = [line for line in said["lines"] if line["verdict"] != "ok"]
    assert (line["verdict"], line["subject"]) == ("warning", "certificate")
    assert "self-signed" in line["found"]
    assert said["request"]["status"] == 200
    other = lab.directory / "etc" / f"tls-{OTHER[place.home['https']]}" / f"{NAME}.crt"
    said = place.probe("https", "--cacert", str(other))
    assert faults(said, "certificate")
    assert said["request"]["status"] == 200


def test_a_server_that_speaks_first(place: Place) -> None:
    said = place.probe("tcp")
    assert said["ok"]
    assert bytes.fromhex(said["greeting"]["data"]).startswith(b"SSH-2.0-")
    assert "'SSH-2.0-" in found_of(said, "greeting")
    home = BRIDGES[place.home["tcp"]]
    assert said["balancer"]["id"] == said["bridges"][home]["id"]
    assert "steered to ssh/" in found_of(said, BALANCER)


def test_a_datagram(place: Place) -> None:
    said = place.probe("udp")
    assert said["ok"]
    home = place.home["udp"]
    assert bytes.fromhex(said["datagram"]["data"]) == f"{home} hello".encode()
    assert f"'{home} hello'" in found_of(said, "answer")
    assert "steered to p/" in found_of(said, BALANCER)
    assert said["bridges"][BRIDGES[home]]["answered"]
    assert said["bridges"][BRIDGES[home]]["server"] == place.server("udp")
    assert said["bridges"][BRIDGES[OTHER[home]]] is None


def found_of(said: dict[str, Any], subject: str) -> str:
    """What is said of a subject."""
    return "\n".join(line["found"] for line in said["lines"] if line["subject"] == subject)


# --- faults, as those of HTTP ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((f"https://{VIP}:444/",), "no service at 192.168.33.10 port 444"),
        ((f"tcp://{VIP}:23",), "no service at 192.168.33.10 port 23"),
        ((f"udp://{VIP}:80", "--send", "x"), "no UDP service at 192.168.33.10 port 80"),
    ],
)
def test_no_service(place: Place, words: tuple[str, ...], said: str) -> None:
    assert said in faults(place.probe("", words=words), BALANCER)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_bridge_runs(lab: Lab, place: Place, scheme: str) -> None:
    home = place.home[scheme]
    lab.script("stop", home)
    try:
        said = place.probe(scheme)
    finally:
        lab.script("start", home)
    assert "no packetbridge runs there" in place.at_home(said, scheme)
    served_elsewhere(place, said, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_dscp_that_is_changed(lab: Lab, place: Place, scheme: str) -> None:
    change = ("POSTROUTING", "-d", BRIDGES[place.home[scheme]], "-j", "DSCP", "--set-dscp", "0")
    with rule(lab, "balancer", "mangle", *change):
        said = place.probe(scheme)
    assert "packets reach its host, but not with DSCP 1" in place.at_home(said, scheme)
    served_elsewhere(place, said, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_refuses(place: Place, scheme: str) -> None:
    """By RST, which the bridge takes of a handoff's server only, or by ICMP."""
    with place.serverless(scheme, place.home[scheme]):
        said = place.probe(scheme)
    what = "datagrams" if scheme == "udp" else "connections"
    assert f"server {place.server(scheme)} refuses {what}" in place.at_home(said, scheme)
    assert not said["ok"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_silent(lab: Lab, place: Place, scheme: str) -> None:
    kind, (address, port) = "udp" if scheme == "udp" else "tcp", place.server(scheme).split(":")
    silent = ("INPUT", "-p", kind, "-d", address, "--dport", port, "-j", "DROP")
    with rule(lab, place.home[scheme], "filter", *silent):
        said = place.probe(scheme)
    expected = "has not answered yet" if scheme == "udp" else "does not answer"
    assert expected in place.at_home(said, scheme)
    assert place.server(scheme) in place.at_home(said, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_route_back_to_the_client(lab: Lab, place: Place, scheme: str) -> None:
    with route(lab, place.home[scheme], "unreachable", CLIENT):
        said = place.probe(scheme)
    assert f"no route to the client {CLIENT}" in place.at_home(said, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nobody_takes_new_ones(lab: Lab, place: Place, scheme: str) -> None:
    """All backends are drained, and there is no answer of the balancer's own but a reset."""
    for name in BRIDGES:
        told(lab, "balancer", "drain", f"{POOLS[scheme]}/{name}")
    try:
        forget(lab)
        said = place.probe(scheme)
    finally:
        for name in BRIDGES:
            told(lab, "balancer", "ready", f"{POOLS[scheme]}/{name}")
    assert "no backend could take the" in faults(said, BALANCER)
    for name, bridge in BRIDGES.items():
        assert f"{POOLS[scheme]}/{name} is drain" in faults(said, f"bridge {bridge}")


def forget(lab: Lab) -> None:
    """Who has a mapping keeps it while a backend drains."""
    told(lab, "balancer", "flows", "--protocol", "udp", "--kill")


def served_elsewhere(place: Place, said: dict[str, Any], scheme: str) -> None:
    """Connections are, a second later, which is not ok; a client's datagrams are not."""
    assert not said["ok"]
    if scheme == "udp":
        assert said["datagram"]["answered"] is None
    else:
        assert said["balancer"]["backend"] == OTHER[place.home[scheme]]
        assert f"passed over {place.home[scheme]}" in place.at_home(said, scheme)
        assert faults(said, f"bridge {BRIDGES[OTHER[place.home[scheme]]]}") == ""


# --- what else there is ---


def test_another_protocol_than_the_services(place: Place) -> None:
    said = place.probe("", words=(f"http://{VIP}:{TLS_PORT}/",))
    assert 'reads something else (inspect = "tls")' in faults(said, BALANCER)
    said = place.probe("", words=(f"https://{VIP}:80/",))
    assert 'reads something else (inspect = "http")' in faults(said, BALANCER)


def test_a_server_that_answers_otherwise(place: Place) -> None:
    """HTTP to a server of SSH."""
    said = place.probe("", words=(f"http://{VIP}:{ssh.PORT}/",))
    assert "in other words than asked for" in place.at_home(said, "tcp")


@LONG
def test_nobody_says_a_word(place: Place) -> None:
    """Without inspection a server may wait for its client; with it nobody has been asked."""
    said = place.probe("", words=(f"tcp://{VIP}:{TLS_PORT}",))
    (line,) = [line for line in said["lines"] if line["verdict"] != "ok"]
    assert (line["verdict"], line["subject"]) == ("not judged", "greeting")
    assert "https://" in line["found"]


@LONG
def test_an_answer_of_the_servers_own_address(lab: Lab, place: Place) -> None:
    """As where its bridge has no record any more."""
    Path(place.path)


@LONG
def test_no_balancer_runs(lab: Lab, place: Place) -> None:
    lab.script("stop", "balancer")
    try:
        for scheme in SCHEMES:
            assert "none runs there" in faults(place.probe(scheme), BALANCER)
    finally:
        lab.script("start", "balancer")
