"""The lab of namespaces as the tests use it: hosts to run code on, programs to read and restart."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
LAB = ROOT / ".lab"
SCRIPT = ROOT / "provisioning" / "lab.sh"
NAME = os.environ.get("LAB_NAME", "l3dsr")  # what its namespaces' names begin with

CLIENT, CLIENT2, VIP = "192.168.33.1", "192.168.33.2", "192.168.33.10"
ROUTED_CLIENT = "192.168.31.1"  # the same host in the routed lab
BRIDGE1, SERVER1 = "192.168.33.20", "192.168.33.30"
BRIDGE2, SERVER2 = "192.168.33.21", "192.168.33.31"
PROGRAMS = ("balancer", "backend1", "backend2")  # the last two are the bridges
CONFIGURATIONS = {  # in the order in which the programs start
    "nginx-backend1": "nginx-backend1.conf",
    "nginx-backend2": "nginx-backend2.conf",
    "backend1": "packetbridge-backend1.toml",
    "backend2": "packetbridge-backend2.toml",
    "balancer": "balancer.toml",
}

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The condition's first true value; fails the test where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return value


def namespace(host: str, lab: str = NAME) -> str:
    """The file that a host's network namespace is entered by."""
    return f"/run/netns/{lab}-{host}"


def running(pid: int) -> bool:
    """Whether a process runs (and does not just wait to be buried)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


@dataclass(frozen=True)
class Answer:
    """What curl says of one request: `port` is the client's, `seconds` the whole request's."""

    status: int
    backend: str
    body: bytes
    port: int
    seconds: float
    bytes_per_second: float


class Lab:
    """The running lab, as `make lab` makes it; ``datapath`` is the path it was told to take, in
    ``directory`` lies its state."""

    def __init__(
        self,
        datapath: str,
        name: str = NAME,
        directory: Path = LAB,
        topology: str = "switched",
    ) -> None:
        self.datapath = datapath
        self.directory = directory
        self._name = name
        self._environment = {
            **os.environ,
            "LAB_DATAPATH": datapath,
            "LAB_DIR": str(directory),
            "LAB_LOG_LEVEL": "info",
            "LAB_NAME": name,
            "LAB_TOPOLOGY": topology,
            "no_proxy": "*",
        }

    @property
    def in_kernel(self) -> bool:
        """Whether established connections are the kernel's, and outlive the programs."""
        return self.datapath == "ebpf"

    # --- the lab as a whole ---

    def script(self, *arguments: str, **environment: str) -> str:
        """Output of provisioning/lab.sh; fails the test with its error message.

        What it starts has more in its ``environment``."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"lab.sh {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def up(self) -> None:
        self.script("up")

    def down(self) -> None:
        self.script("down")

    def complete(self) -> bool:
        """Whether all programs are running."""
        return all(self.alive(program) for program in CONFIGURATIONS)

    # --- running things on a host ---

    def command(self, host: str, *command: str) -> list[str]:
        """The command line that runs ``command`` on a host."""
        return ["nsenter", f"--net={namespace(host, self._name)}", "--", *command]

    def run(self, host: str, *command: str, timeout: float = 60, check: bool = True) -> str:
        """Output of a command on a host; fails the test with its error message."""
        done = self.result(host, *command, timeout=timeout)
        assert not check or done.returncode == 0, f"{host}: {command}: {done.stderr}"
        return done.stdout

    def result(
        self, host: str, *command: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """A command's exit code and output, whatever they are."""
        return subprocess.run(
            self.command(host, *command),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def inside(self, host: str, function: Callable[..., T], *arguments: Any) -> T:
        """What a function returns that runs in this process, its thread being on a host.

        Sockets belong to the namespace they were made in, whichever thread uses them later.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                _enter_namespace(namespace(host, self._name))
                results.append(function(*arguments))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def socket(self, host: str, *arguments: int) -> socket.socket:
        """A socket on a host; arguments as for `socket.socket` (none: TCP)."""
        return self.inside(host, socket.socket, *arguments)

    def connect(
        self, host: str = "client", to: tuple[str, int] = (VIP, 80), port: int = 0
    ) -> socket.socket:
        """A TCP connection from a host, with a time-out of ten seconds for whatever it does.

        With a ``port`` it comes from that one, also if an earlier connection had it.
        """
        tcp = self.socket(host)
        try:
            tcp.settimeout(10)
            if port:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tcp.bind(("", port))
            tcp.connect(to)
        except BaseException:
            tcp.close()
            raise
        return tcp

    def curl(
        self, path: str, *options: str, host: str = "client", to: str = VIP, timeout: float = 60
    ) -> Answer:
        """One request by curl on a connection of its own."""
        form = "\n%{http_code} %{local_port} %{time_total} %{speed_download} %header{x-backend}"
        command = ["curl", "-sS", "--path-as-is", "--max-time", f"{timeout}", "-w", form, *options]
        done = subprocess.run(
            self.command(host, *command, f"http://{to}{path}"),
            env=self._environment,
            capture_output=True,
            timeout=timeout + 10,
            check=False,
        )
        assert done.returncode == 0, f"curl {path}: {done.returncode}: {done.stderr.decode()}"
        body, _, line = done.stdout.rpartition(b"\n")
        status, port, seconds, speed, *backend = line.decode().split()
        name = backend[0] if backend else ""
        return Answer(int(status), name, body, int(port), float(seconds), float(speed))

    def path_for(self, name: str, backend: str) -> str:
        """A path of a file in the document root that the balancer gives to a backend.

        The balancer takes a path as it stands; nginx drops what changes nothing in it.
        """
        for dots in range(64):
            path = "/." * dots + f"/{name}"
            if self.curl(path, "-I").backend == backend:
                return path
        raise AssertionError(f"no path leads to {backend}")

    @contextmanager
    def sysctl(self, host: str, **settings: object) -> Iterator[None]:
        """Kernel settings of a host, `net_ipv4_tcp_sack=0` for net.ipv4.tcp_sack, for a while."""
        names = [re.sub("^net_ipv4_", "net.ipv4.", name) for name in settings]
        before = [self.run(host, "sysctl", "-n", name).strip() for name in names]
        try:
            for name, value in zip(names, settings.values(), strict=True):
                self.run(host, "sysctl", "-q", "-w", f"{name}={value}")
            yield
        finally:
            for name, value in zip(names, before, strict=True):
                self.run(host, "sysctl", "-q", "-w", f"{name}={value}")

    @contextmanager
    def address(self, host: str, address: str) -> Iterator[str]:
        """One more address of a host, for a while."""
        self.run(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        try:
            yield address
        finally:
            self.run(host, "ip", "address", "delete", f"{address}/24", "dev", "eth0")

    @contextmanager
    def no_offloads(self) -> Iterator[None]:
        """Every packet on the lab's links is one segment with its checksums, for a while."""
        hosts = ("client", "balancer", "backend1", "backend2")
        before = {host: self._offloads(host) for host in hosts}
        try:
            for host in hosts:
                self._set_offloads(host, dict.fromkeys(before[host], "off"))
            yield
        finally:
            for host in hosts:
                self._set_offloads(host, before[host])

    def _offloads(self, host: str) -> dict[str, str]:
        """ "on" or "off" by ethtool's short names."""
        names = {
            "tx-checksumming": "tx",
            "tcp-segmentation-offload": "tso",
            "generic-segmentation-offload": "gso",
            "generic-receive-offload": "gro",
        }
        found = {}
        for line in self.run(host, "ethtool", "-k", "eth0").splitlines():
            name, _, value = line.partition(":")
            if name in names:
                found[names[name]] = value.split()[0]
        return found

    def _set_offloads(self, host: str, values: dict[str, str]) -> None:
        words = [word for pair in values.items() for word in pair]
        self.run(host, "ethtool", "-K", "eth0", *words)

    def states(self, host: str, port: int, to: int | None = None) -> list[str]:
        """States of a host's TCP connections from or to the client's port ("ESTAB"), and of these
        only ones with port ``to`` at the other end: the client's kernel gives a port again for
        another service while the first one's server is in TIME-WAIT. The second client's, a check's
        or a direct one's may have the same port."""
        lines = [line.split() for line in self.run(host, "ss", "-Htan").splitlines()]
        client = {f"{address}:{port}" for address in (CLIENT, ROUTED_CLIENT)}
        return [
            state
            for state, _, _, *ends in lines
            if client.intersection(ends)
            and (to is None or any(end.endswith(f":{to}") for end in ends if end not in client))
        ]

    def silences(self) -> int:
        """How often so far the client and the servers have waited for an answer in vain, and sent
        something again or probed (RFC 6298, RFC 8985 section 7). A SYN-ACK that a bridge has asked
        for twice is not among these, as it is among retransmissions."""
        hosts, names = ("client", "backend1", "backend2"), ("TCPTimeouts", "TCPLossProbes")
        counted = itertools.product(hosts, names)
        return sum(self.kernel_count(host, "netstat", "TcpExt", name) for host, name in counted)

    def kernel_count(self, host: str, file: str, group: str, name: str) -> int:
        """A counter of a host's kernel, of /proc/net/snmp or netstat."""
        names, values = [
            line.split()
            for line in self.run(host, "cat", f"/proc/self/net/{file}").splitlines()
            if line.startswith(f"{group}:")
        ]
        return int(values[names.index(name)])

    def closed(self, port: int) -> bool:
        """Whether the client has no connection on a port any more, or one in TIME-WAIT: then all
        of its packets have passed."""
        return set(self.states("client", port)) <= {"TIME-WAIT"}

    def link_address(self, host: str) -> bytes:
        """The Ethernet address of a host's interface."""
        link = json.loads(self.run(host, "ip", "-j", "link", "show", "eth0"))[0]
        return bytes.fromhex(link["address"].replace(":", ""))

    def bytes_at(self, host: str) -> tuple[int, int]:
        """Bytes that a host's interface has (received, sent) so far."""
        for line in self.run(host, "cat", "/proc/net/dev").splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "eth0":
                fields = numbers.split()
                return int(fields[0]), int(fields[8])
        raise AssertionError(f"{host} has no eth0")

    # --- the programs ---

    def pid(self, program: str) -> int:
        return int((self.directory / "run" / f"{program}.pid").read_text())

    def pids(self, host: str) -> list[int]:
        """All processes on a host."""
        command = ["ip", "netns", "pids", f"{self._name}-{host}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(pid) for pid in told.stdout.split()]

    def alive(self, program: str) -> bool:
        try:
            return running(self.pid(program))
        except FileNotFoundError:  # it was stopped on purpose
            return False

    def log(self, program: str, start: int = 0) -> str:
        """A program's log, from a position of ``log_end`` on."""
        with (self.directory / "log" / f"{program}.log").open("rb") as log:
            log.seek(start)
            return log.read().decode()

    def log_end(self, program: str) -> int:
        return (self.directory / "log" / f"{program}.log").stat().st_size

    def counters(self, program: str) -> dict[str, int]:
        """A program's counters and gauges; those that have never counted are not there."""
        start = self.log_end(program)
        os.kill(self.pid(program), 12)  # SIGUSR2

        def written() -> re.Match[str] | None:
            return re.search(r" counters (.*)\n", self.log(program, start))

        line = until(written, 10, f"{program} writes its counters")
        return {name: int(count) for name, _, count in map(_parted, line[1].split())}

    def growth(self, program: str) -> Growth:
        """By how much a program's counters grow from now on."""
        return Growth(self, program)

    def lost(self, host: str) -> int:
        """Packets that a host's kernel dropped as a program's queue was full."""
        lines = self.run(host, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
        # queue, port id, waiting, copy mode, range, dropped, dropped at the socket
        return sum(int(line.split()[5]) + int(line.split()[6]) for line in lines)

    def rules(self, host: str) -> list[str]:
        """A host's firewall rules, without counts and comments."""
        lines = self.run(host, "iptables-save").splitlines()
        return [re.sub(r" \[\d+:\d+\]", "", line) for line in lines if line[:1] != "#"]

    @contextmanager
    def configured(self, **changes: Callable[[str], str]) -> Iterator[None]:
        """The named programs (`nginx_backend1` for nginx-backend1) with changed configurations.

        Bridges and servers restart before the balancer, and get back their own at the end.
        """
        named = {name.replace("_", "-"): change for name, change in changes.items()}
        programs = [program for program in CONFIGURATIONS if program in named]
        files = {program: self.directory / "etc" / CONFIGURATIONS[program] for program in programs}
        before = {program: file.read_text() for program, file in files.items()}
        try:
            for program in programs:
                changed = named[program](before[program])
                assert changed != before[program], f"{program}: the change changes nothing"
                files[program].write_text(changed)
                self.script("restart", program)
            yield
        finally:
            for program in programs:
                files[program].write_text(before[program])
            for program in programs:
                self.script("restart", program)


def _parted(pair: str) -> tuple[str, str, str]:
    return pair.partition("=")


def _enter_namespace(path: str) -> None:
    """Move this thread, and only it, to a host (setns(2); Python has it from 3.12 on)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as entered:
        if libc.setns(entered.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")


class Growth:
    """What a program has counted since this was made."""

    def __init__(self, lab: Lab, program: str) -> None:
        self._lab = lab
        self._program = program
        self._before = lab.counters(program)

    def __call__(self, name: str) -> int:
        """By how much a counter has grown; packets on their way are not in it."""
        return self._lab.counters(self._program).get(name, 0) - self._before.get(name, 0)

    def reaches(self, name: str, count: int = 1) -> bool:
        """Whether a counter grows by so many; waits for packets on their way, 2 s at most."""
        until(lambda: self(name) >= count, 2, f"{self._program} counts {count} {name}")
        return self(name) == count
