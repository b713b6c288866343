"""Connections that nobody reads: SSH, where the server speaks first, between real programs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from common.core.segment import MASK, build
from tests.e2e import ssh
from tests.e2e.capture import ACK, SYN, Packet, capture
from tests.e2e.controlled import seen, told
from tests.e2e.lab import BRIDGE1, CLIENT, CONFIGURATIONS, ROOT, VIP, Lab, until

pytestmark = pytest.mark.root

SIZE = 20_000_000
POOLS = ("ssh", "spread", "remote", "near")
ALL = 6  # backends of them all
OFTEN = "check = { interval = 0.2, timeout = 0.5, rise = 1, fall = 2 }"
LISTENS = 'check = { kind = "tcp", interval = 0.2, timeout = 0.5, rise = 1, fall = 2 }'


@pytest.fixture(scope="module")
def client(running_lab: Lab) -> Iterator[ssh.Client]:
    with (
        ssh.servers(running_lab) as client,
        ssh.configured(running_lab, OFTEN, LISTENS, "[timeouts]\nlinger = 0.5\n"),
    ):
        until(lambda: len(up(running_lab)) == ALL, 10, "all are well")
        yield client


@pytest.fixture(scope="module")
def home(running_lab: Lab, client: ssh.Client) -> str:
    """The backend that the client's address belongs to while all are well."""
    until(lambda: len(up(running_lab)) == ALL, 10, "all are well")
    with client.shell() as shell:
        return shell.backend


def up(lab: Lab) -> set[tuple[str, str]]:
    """Pool and backend of those that are up, of these services."""
    every = seen(lab, "balancer", "backends")
    return {
        (row["pool"], row["name"]) for row in every if row["state"] == "up" and row["pool"] in POOLS
    }


def behind(server: str) -> set[tuple[str, str]]:
    """The backends of these services whose server is that host's."""
    far = "remote" if server == "backend2" else "near"
    return {("ssh", server), ("spread", server), (far, "backend1")}


@contextmanager
def found_down(
    lab: Lab, backends: set[tuple[str, str]], mend: Callable[[], object]
) -> Iterator[None]:
    """While something is wrong with all of these. It ends once they were known for it and, after
    ``mend``, all are well again: who is found down only later is not where the next test looks."""
    try:
        yield
        until(lambda: not backends & up(lab), 10, "they are found down")
    finally:
        mend()
        until(lambda: len(up(lab)) == ALL, 10, "all are well")


@contextmanager
def without_server(lab: Lab, client: ssh.Client, host: str) -> Iterator[None]:
    client.stop(host)
    with found_down(lab, behind(host), lambda: client.start(host)):
        yield


def test_a_session_is_the_servers_own(lab: Lab, client: ssh.Client, home: str) -> None:
    """The server sees the client's own address, and all of TCP that the client says but for the
    ports; and what it sends goes straight to the client, past the balancer."""
    places = {
        "client": ("client", "eth0"),
        "balancer": ("balancer", "eth0"),
        "server": (home, "lo"),
    }
    with lab.no_offloads(), ExitStack() as stack:
        captures = {
            place: stack.enter_context(capture(lab, host, interface))
            for place, (host, interface) in places.items()
        }
        with client.shell() as shell:
            address, port = shell.peer
            assert shell.says("head -c 300000 /dev/zero | wc -c") == "300000"
        until(lambda: lab.closed(port), 5, "the last packet has passed")
        found = {
            place: [p for p in packets.packets if port in p.ports and 253 not in p.options]
            for place, packets in captures.items()
        }
    assert address == CLIENT
    assert {p.way for p in found["client"]} == {(CLIENT, VIP), (VIP, CLIENT)}
    assert {p.way for p in found["balancer"]} == {(CLIENT, VIP), (CLIENT, ssh.BRIDGES[home])}
    sent = [said(p) for p in found["client"] if p.outgoing]
    assert len(sent) > 20
    # what comes by the wire, the kernel passes on without the loopback
    arrived = [said(p) for p in found["server"] if p.destination == ssh.SERVERS[home]]
    assert arrived[0] == sent[0], "the SYN, sent with the mark"
    steered = [p for p in found["balancer"] if p.destination != VIP]
    assert [said(p) for p in steered] == sent


def test_the_servers_syn_ack_comes_as_it_is(lab: Lab, client: ssh.Client, home: str) -> None:
    """Beside the answer of the same server to a direct connection."""
    answers = []
    for address in (VIP, ssh.SERVERS[home]):
        with capture(lab, "client") as packets, lab.connect(to=(address, ssh.PORT)) as tcp:
            assert tcp.recv(4) == b"SSH-"
            port = tcp.getsockname()[1]
        syn_ack = next(p for p in packets.packets if port in p.ports and p.flags == SYN | ACK)
        options = {kind: content for kind, content in syn_ack.options.items() if kind != 8}
        answers.append((list(syn_ack.options), options, syn_ack.tcp[14:16]))
    assert answers[0] == answers[1]


def said(packet: Packet) -> tuple[object, ...]:
    """All of TCP's header but ports and checksum."""
    options = packet.tcp[20 : (packet.tcp[12] >> 4) * 4]
    return packet.seq, packet.ack, packet.flags, packet.tcp[14:16], options, len(packet.payload)


def test_a_large_file_up_and_down(client: ssh.Client) -> None:
    content = os.urandom(SIZE)
    sum_there = client.run("sha256sum", given=content, timeout=60).split()[0].decode()
    assert sum_there == hashlib.sha256(content).hexdigest()
    with client.shell() as shell:
        file = shell.says("mktemp")
        there = shell.says(f"head -c {SIZE} /dev/urandom > {file}; sha256sum < {file}").split()[0]
        got = client.run(f"cat {file}; rm {file}", timeout=60)
    assert len(got) == SIZE
    assert hashlib.sha256(got).hexdigest() == there


def test_who_gets_a_connection(lab: Lab, client: ssh.Client, home: str) -> None:
    """By the client's address always the same, as is told; or each connection anew."""
    asked = ("explain", "tcp", f"{VIP}:{ssh.PORT}", "--source", CLIENT)
    explained = seen(lab, "balancer", *asked)
    assert (explained["backend"], explained["key"]) == (home, f"source={CLIENT}")
    for _ in range(3):
        assert client.banner() == home
    with client.shell(ssh.SPREAD) as one, client.shell(ssh.SPREAD) as two:
        assert {one.backend, two.backend} == set(ssh.SERVERS)


def test_a_backend_that_is_drained_gets_no_new_ones(lab: Lab, client: ssh.Client) -> None:
    """By the balancer's word; and by the bridge's, which gives back what comes, and the balancer
    goes on with it at once."""
    with client.shell(ssh.SPREAD) as one, client.shell(ssh.SPREAD) as two:
        told(lab, "balancer", "drain", "spread/backend1")
        try:
            assert [client.banner(ssh.SPREAD) for _ in range(2)] == ["backend2"] * 2
        finally:
            told(lab, "balancer", "ready", "spread/backend1")
        entry = f"{ssh.BRIDGES['backend2']}:{ssh.SPREAD}"
        told(lab, "backend2", "drain", entry)
        try:
            began = time.monotonic()
            assert [client.banner(ssh.SPREAD) for _ in range(2)] == ["backend1"] * 2
            assert time.monotonic() - began < 0.9, "before a client would repeat its SYN"
        finally:
            told(lab, "backend2", "ready", entry)
        assert one.says("echo on") == two.says("echo on") == "on"


def test_a_server_that_is_gone(lab: Lab, client: ssh.Client, home: str) -> None:
    """Its host's RST goes to the client; once a check has found it down, others serve. Sessions,
    which have processes of their own, go on."""
    with client.shell() as shell:
        assert shell.backend == home
        with without_server(lab, client, home):
            with lab.socket("client") as tcp, pytest.raises(ConnectionRefusedError):
                tcp.settimeout(5)
                tcp.connect((VIP, ssh.PORT))
            until(lambda: ("ssh", home) not in up(lab), 10, "it is found down")
            assert client.banner() != home
            assert shell.says("echo on") == "on"
        assert client.banner() == home


def test_a_server_that_says_nothing(lab: Lab, client: ssh.Client, home: str) -> None:
    """A second later the bridge gives the SYN back, and another serves."""
    rule = ["INPUT", "-p", "tcp", "-d", ssh.SERVERS[home], "--dport", str(ssh.PORT), "-j", "DROP"]
    gone_on = lab.growth("balancer")
    mend = partial(lab.run, home, "iptables", "-w", "-D", *rule)
    lab.run(home, "iptables", "-w", "-I", *rule)
    with found_down(lab, behind(home), mend), lab.connect(to=(VIP, ssh.PORT)) as tcp:
        assert tcp.recv(4) == b"SSH-"
    assert gone_on("redispatched") == 1


def test_blind_segments_change_nothing(lab: Lab, client: ssh.Client) -> None:
    """SYNs and RSTs in a live connection's name: the server judges, as without a balancer."""
    with client.shell() as shell:
        port = shell.peer[1]
        address = socket.inet_aton(CLIENT), socket.inet_aton(VIP), port, ssh.PORT
        blind = lab.socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with blind:
            for number in range(20):
                seq = number * 0x0CCCCCCD & MASK
                for flags in (2, 4):  # SYN, RST
                    packet = build(*address, seq=seq, ack=0, flags=flags, window=512)
                    blind.sendto(packet, (VIP, 0))
        for number in range(5):
            assert shell.says(f"echo {number}") == f"{number}"
        size = 2_000_000
        assert shell.says(f"head -c {size} /dev/zero | wc -c") == f"{size}"


def test_the_operator_ends_one(lab: Lab, client: ssh.Client) -> None:
    for program in ("balancer", None):
        with client.shell() as shell:
            where, port = program or shell.backend, shell.peer[1]
            told(lab, where, "flows", "--kill", f"{CLIENT}:{port}")
            assert shell.process.wait(5) != 0
            until(lambda port=port: not there(lab, port), 5, "the server, too")


@pytest.mark.parametrize("port", [ssh.REMOTE, ssh.NEAR])
def test_the_server_sees_the_bridge(lab: Lab, client: ssh.Client, port: int) -> None:
    """From ten ports only, which the bridge lets go after a second, and the server holds in
    TIME-WAIT for a minute."""
    with client.shell(port) as shell:
        address, source = shell.peer
        assert address == BRIDGE1
        assert source // 10 == port
        assert shell.says("head -c 3000000 /dev/zero | wc -c") == "3000000"
    for _ in range(9):
        client.banner(port)
    until(lambda: not ports_in_use(lab, port), 20, "the bridge has let all ten go")
    began = time.monotonic()
    client.banner(port)
    assert time.monotonic() - began < 0.9, "the first SYN was good"


def ports_in_use(lab: Lab, port: int) -> list[str]:
    every = seen(lab, "backend1", "flows")
    return [flow["id"] for flow in every if flow["vip"] == f"{VIP}:{port}"]


@pytest.mark.parametrize("flags", [1, 2])
def test_a_server_that_sends_syn_cookies(
    lab: Lab, client: ssh.Client, home: str, flags: int
) -> None:
    """As under a flood, and always: the socket is made from the handshake's last packet."""
    with lab.sysctl(home, net_ipv4_tcp_syncookies=flags), client.shell() as shell:
        assert shell.says("head -c 300000 /dev/zero | wc -c") == "300000"


def test_a_narrower_path(lab: Lab, client: ssh.Client, home: str) -> None:
    """A router on the way to the client says how much it takes: the server sends no more."""
    with capture(lab, "client") as packets, client.shell() as shell:
        port = shell.peer[1]
        last = [p for p in packets.packets if port in p.ports and not p.outgoing][-1]
        quoted = last.data[:28]
        error = IP(src="192.168.33.2", dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1200) / quoted
        with lab.socket("client2", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(bytes(error), (VIP, 0))

        def told_so() -> bool:
            said = lab.run(home, "ss", "-Htin", "dst", f"{CLIENT}:{port}")
            return " pmtu:1200 " in said

        until(told_so, 5, "the server has heard of it")
        assert shell.says("head -c 300000 /dev/zero | wc -c") == "300000"
    lab.run(home, "ip", "route", "flush", "cache")


def test_silence_ends_it_for_both(lab: Lab, client: ssh.Client, home: str) -> None:
    file = lab.directory / "etc" / CONFIGURATIONS[home]
    before = file.read_text()
    with client.shell() as shell:
        port = shell.peer[1]
        file.write_text(f"{before}idle = 1.0\n")
        try:
            told(lab, home, "reload")
            assert shell.process.wait(20) != 0
            until(lambda: not there(lab, port), 5, "the server, too")
        finally:
            file.write_text(before)
            told(lab, home, "reload")


@pytest.mark.parametrize("program", ["balancer", "bridge"])
def test_a_backend_that_is_down_takes_its_connections_along(
    lab: Lab, client: ssh.Client, home: str, program: str
) -> None:
    """With ``on_down = "reset"``, of the balancer's pool or the bridge's backend."""
    name = program if program == "balancer" else home
    file = lab.directory / "etc" / CONFIGURATIONS[name]
    before = file.read_text()
    which = 'key = "source"\n' if program == "balancer" else "handoff = false\n"
    file.write_text(before.replace(which, f'{which}on_down = "reset"\n'))
    try:
        told(lab, name, "reload")
        with client.shell() as shell:
            port = shell.peer[1]
            with without_server(lab, client, home):
                assert shell.process.wait(10) != 0
                until(lambda: not there(lab, port), 5, "the server, too")
    finally:
        file.write_text(before)
        told(lab, name, "reload")


def there(lab: Lab, port: int) -> list[str]:
    """States of the client's connection from a port, at the servers' hosts."""
    return [state for host in ssh.SERVERS for state in lab.states(host, port, ssh.PORT)]


@pytest.mark.parametrize("port", [ssh.PORT, ssh.SPREAD])
def test_the_balancer_restarts(lab: Lab, client: ssh.Client, port: int) -> None:
    """The kernel goes on; or a hash leads to the same backend again, and who was chosen in turn is
    reset, after a kill: a stop would have its host reset whoever sends meanwhile."""
    number = signal.SIGTERM if lab.in_kernel else signal.SIGKILL
    until(lambda: len(up(lab)) == ALL, 10, "all are well")
    with client.shell(port) as shell:
        assert shell.says("echo before") == "before"
        os.kill(lab.pid("balancer"), number)
        until(lambda: not lab.alive("balancer"), 10, "it has ended")
        lab.script("start", "balancer")
        if port == ssh.SPREAD and not lab.in_kernel:
            with pytest.raises(EOFError):
                shell.says("echo behind")
            return
        assert shell.says("echo behind") == "behind"
        assert shell.says("echo again") == "again"


def test_the_bridge_is_killed(lab: Lab, client: ssh.Client, home: str) -> None:
    """Nothing is shifted: the connection goes on when either side sends."""
    with client.shell() as shell:
        assert shell.says("echo before") == "before"
        os.kill(lab.pid(home), signal.SIGKILL)
        until(lambda: not lab.alive(home), 10, "it has ended")
        until(lambda: home not in {name for _, name in up(lab)}, 10, "it is found down")
        lab.script("start", home)
        assert shell.says("echo behind") == "behind"


def test_a_probe_hears_the_server_and_names_what_is_wrong(
    lab: Lab, client: ssh.Client, home: str
) -> None:
    until(lambda: len(up(lab)) == ALL, 10, "all are well")
    heard = probed(lab, ssh.PORT)
    assert heard["ok"]
    assert bytes.fromhex(heard["greeting"]["data"]).decode().split()[-1] == home
    assert heard["balancer"]["backend"] == home
    with without_server(lab, client, "backend1"):
        until(lambda: ("near", "backend1") not in up(lab), 10, "it is found down")
        refused = probed(lab, ssh.NEAR)
        assert not refused["ok"]
        found = [line["found"] for line in refused["lines"] if line["mend"]]
        assert found == ["it refused the client: no backend could take the connection"]


def probed(lab: Lab, port: int) -> dict[str, Any]:
    command = str(ROOT / ".venv" / "bin" / "balancer")
    done = lab.result("client", command, "probe", f"tcp://{VIP}:{port}", "--json")
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    return said
