"""Who is measured: how a client reaches the two servers, and what stands between them meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hosts import LABS, Hosts
from tests.e2e.lab import SERVER1, SERVER2, VIP, Lab, running, until

PEERS = Path(__file__).parent / "peers"
DIRECT, BOTH, OURS = "direct", "direct, both servers", "ours (ebpf)"
SLOW_ROUNDS = 2


@dataclass(frozen=True)
class Contestant:
    """``targets`` ("address:port") are one unless the client chooses the server itself.

    ``host`` is where clients run; what is ``slow`` takes a hundred times as long as the others, and
    is measured less often."""

    name: str
    lab: Hosts
    host: str
    targets: tuple[str, ...]
    slow: bool = False

    def rounds(self, most: int) -> int:
        return min(most, SLOW_ROUNDS) if self.slow else most


@contextmanager
def contestants() -> Iterator[list[Contestant]]:
    """All of them, each ready to be measured while the others are idle.

    Our programs have labs of their own, one for each data path, so that nothing of theirs is in the
    way of the others' packets."""
    with ExitStack() as stack:
        labs = {name: stack.enter_context(Hosts(name, path)) for name, path in LABS.items()}
        peers = labs["peers"]
        for start in (_haproxy, _nginx):
            stack.enter_context(_ended(peers, start(peers)))
        stack.enter_context(_dnat(peers))
        servers = (f"{SERVER1}:80", f"{SERVER2}:80")
        yield [
            # the second client, as in all tests: the first one's addresses belong to the VIP's
            Contestant(DIRECT, peers, "client2", servers[:1]),
            Contestant(BOTH, peers, "client2", servers),
            Contestant("kernel DNAT", peers, "client", (f"{VIP}:8083",)),
            Contestant("HAProxy", peers, "client", (f"{VIP}:8081",)),
            Contestant("nginx", peers, "client", (f"{VIP}:8082",)),
            Contestant(OURS, labs["ebpf"], "client", (f"{VIP}:80",)),
            Contestant("ours (nfqueue)", labs["nfqueue"], "client", (f"{VIP}:80",), slow=True),
        ]


def configurations() -> dict[str, str]:
    """What the peers run with, but for the directory of the lab."""
    return {
        "HAProxy": _filled("haproxy.cfg", PID_FILE="/run/haproxy.pid"),
        "nginx": _filled("nginx.conf", PID_FILE="/run/nginx.pid", TEMP="/tmp"),
        "kernel DNAT": _filled("dnat.rules"),
    }


def workers() -> int:
    """A proxy's threads: as many as there are processors, as the kernel uses them all for us."""
    return os.cpu_count() or 1


def _filled(name: str, **words: object) -> str:
    text = (PEERS / name).read_text()
    words |= {"VIP": VIP, "SERVER1": SERVER1, "SERVER2": SERVER2, "WORKERS": workers()}
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    return text


def _haproxy(lab: Lab) -> subprocess.Popen[bytes]:
    path = lab.directory / "etc" / "haproxy.cfg"
    path.write_text(_filled("haproxy.cfg", PID_FILE=lab.directory / "run" / "haproxy.pid"))
    return _started(lab, 8081, "haproxy", "-db", "-f", str(path))


def _nginx(lab: Lab) -> subprocess.Popen[bytes]:
    temp = lab.directory / "www.temp" / "peer"
    temp.mkdir(parents=True, exist_ok=True)
    path = lab.directory / "etc" / "nginx-peer.conf"
    pid_file = lab.directory / "run" / "nginx-peer.pid"
    path.write_text(_filled("nginx.conf", PID_FILE=pid_file, TEMP=temp))
    return _started(lab, 8082, "nginx", "-c", str(path), "-g", "daemon off;")


def _started(lab: Lab, port: int, *command: str) -> subprocess.Popen[bytes]:
    """A proxy on the balancer's host; it must not end with this process's terminal."""
    path = lab.directory / "log" / f"{command[0]}-peer.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            lab.command("balancer", *command), stdout=log, stderr=log, start_new_session=True
        )
    until(lambda: _listens(lab, port) or process.poll() is not None, 10, f"{command[0]} listens")
    if process.poll() is not None:
        raise RuntimeError(f"{command[0]} ended: {path.read_text()}")
    return process


def _listens(lab: Lab, port: int) -> bool:
    return bool(lab.run("balancer", "ss", "-Htln", f"sport = :{port}"))


@contextmanager
def _ended(lab: Lab, process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if running(process.pid):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


@contextmanager
def _dnat(lab: Lab) -> Iterator[None]:
    """Only the rules' own port is translated; what goes to the proxies' is not even tracked."""
    rules = [line for line in _filled("dnat.rules").splitlines() if line[:1] == "-"]
    untracked = [
        f"-t raw -A {chain} -p tcp -m multiport --ports 8081,8082 -j NOTRACK"
        for chain in ("PREROUTING", "OUTPUT")
    ]
    for rule in rules + untracked:
        lab.run("balancer", "iptables", *rule.split())
    # A closed connection's port is free for the next: thousands a second come from one address.
    lab.run("balancer", "sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=1")
    yield  # the rules go with the host
