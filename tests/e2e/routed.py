"""The routed lab as tests use it: addresses, routers, and what these do to a path for a while."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.lab import LAB, NAME, ROOT, ROUTED_CLIENT, Answer, Lab

DIRECTORY = LAB / "routed"
CLIENT = ROUTED_CLIENT
BRIDGE1, SERVER1 = "192.168.35.20", "192.168.35.30"
BRIDGE2, SERVER2 = "192.168.35.21", "192.168.35.31"
BACKENDS = "192.168.35.0/25"  # all of them; more specific than their subnet
FRONT = "192.168.33.254"  # the router, for the balancer
TRANSIT_MTU = 1400  # from the exit to the router: the servers' way to anywhere
UPLOAD = "upload/routed"
QUEUE = 4712


def routed_lab(datapath: str) -> Lab:
    """Beside the ordinary lab: its own namespaces and its own directory."""
    return Lab(datapath, f"{NAME}-routed", DIRECTORY, "routed")


def forget_path_mtus(lab: Lab) -> None:
    """Each kernel's path-MTU discovery begins anew."""
    for host in ("client", "balancer", "backend1", "backend2"):
        lab.run(host, "ip", "route", "flush", "cache")


def download(lab: Lab, path: str) -> Answer:
    """20 MB, byte for byte."""
    answer = lab.curl(path)
    assert answer.body == (lab.directory / "www" / "20m").read_bytes()
    return answer


def upload(lab: Lab, path: str) -> None:
    """20 MB, byte for byte."""
    source, stored = lab.directory / "www" / "20m", lab.directory / "www" / UPLOAD
    try:
        assert lab.curl(path, "-T", str(source)).status == 201
        assert stored.read_bytes() == source.read_bytes()
    finally:
        stored.unlink(missing_ok=True)


def filtered(lab: Lab, host: str) -> int:
    """Packets that a host's reverse-path filters have dropped."""
    names, values = [
        line.split()
        for line in lab.run(host, "cat", "/proc/self/net/netstat").splitlines()
        if line.startswith("TcpExt:")
    ]
    return int(values[names.index("IPReversePathFilter")])


@contextmanager
def local_route_on_lo(lab: Lab, host: str, address: str) -> Iterator[None]:
    """What `packetbridge check` advises for a server that takes its own host's bridge for its
    clients: without it that one learns of a path's MTU seven seconds late."""
    route = ("ip", "route", "replace", "table", "local", "local", address, "dev")
    lab.run(host, *route, "lo")
    try:
        yield
    finally:
        lab.run(host, *route, "eth0")


@contextmanager
def narrow(lab: Lab, router: str, destination: str, interface: str, mtu: int) -> Iterator[None]:
    """A router's way to a destination takes smaller packets for a while."""
    way = (destination, "dev", interface, "mtu", f"{mtu}")
    lab.run(router, "ip", "route", "add", *way)
    try:
        yield
    finally:
        lab.run(router, "ip", "route", "delete", *way)


@contextmanager
def short_quotations(lab: Lab, router: str) -> Iterator[None]:
    """A router whose ICMP errors quote the 8 bytes of TCP that they must and no more."""
    rule = ["POSTROUTING", "-p", "icmp", "--icmp-type", "fragmentation-needed"]
    rule += ["-j", "NFQUEUE", "--queue-num", f"{QUEUE}"]
    cutter = lab.command(router, sys.executable, "-m", "tests.e2e.cutting", f"{QUEUE}")
    mangle = ("iptables", "-w", "-t", "mangle")
    with subprocess.Popen(cutter, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            lab.run(router, *mangle, "-A", *rule)
            try:
                yield
            finally:
                lab.run(router, *mangle, "-D", *rule)
        finally:
            process.terminate()
