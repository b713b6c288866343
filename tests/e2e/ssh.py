"""Real SSH servers behind the VIP, as a service that nobody reads: the server speaks first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.lab import BRIDGE1, BRIDGE2, SERVER1, SERVER2, VIP, Lab, until

PORT = 2222  # each source goes to one backend,
SPREAD = 2223  # and here each connection has a backend of its own
SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
BRIDGES = {"backend1": BRIDGE1, "backend2": BRIDGE2}

POOL = """
[[pools]]
name = "{name}"
policy = "{policy}"
key = "{key}"
{more}
backends = [{{ name = "backend1", bridge = "{one}" }}, {{ name = "backend2", bridge = "{two}" }}]

[[services]]
name = "{name}"
vip = "{vip}"
port = {port}
dscp = 1
inspect = "none"
pool = "{name}"
"""

ENTRY = """
[[backends]]
address = "{bridge}"
port = {port}
server = "{server}:{at}"
handoff = false
{more}
"""


def services(more: str = "") -> str:
    """For the balancer; ``more`` is for both pools."""
    common = {"one": BRIDGE1, "two": BRIDGE2, "vip": VIP, "more": more}
    by_source = POOL.format(name="ssh", policy="maglev", key="source", port=PORT, **common)
    spread = {"name": "spread", "policy": "round-robin", "key": "source-port"}
    return by_source + POOL.format(port=SPREAD, **spread, **common)


def entries(backend: str, more: str = "") -> str:
    """For a bridge: both ports lead to its one server."""
    ways = {"bridge": BRIDGES[backend], "server": SERVERS[backend], "at": PORT, "more": more}
    return "".join(ENTRY.format(port=port, **ways) for port in (PORT, SPREAD))


@contextmanager
def configured(lab: Lab, more: str = "", of_bridges: str = "", head: str = "") -> Iterator[None]:
    """Both services at all three programs, which restart for it. ``head`` stands first in each
    bridge's file's additions."""

    def add(text: str) -> Callable[[str], str]:
        return lambda before: before + text

    with lab.configured(
        balancer=add(services(more)),
        backend1=add(head + entries("backend1", of_bridges)),
        backend2=add(head + entries("backend2", of_bridges)),
    ):
        yield


@dataclass(frozen=True)
class Client:
    """OpenSSH's, on the lab's client."""

    lab: Lab
    directory: Path

    def command(self, *words: str, port: int = PORT) -> list[str]:
        """The command line of ``ssh`` for those words; on the far side the shell is root's."""
        return self.lab.command("client", *self._ssh(port), *words)

    def run(self, *words: str, port: int = PORT, given: bytes = b"", timeout: float = 30) -> bytes:
        """What a command says; it is given ``given``."""
        done = subprocess.run(
            self.command(*words, port=port),
            input=given,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    @contextmanager
    def shell(self, port: int = PORT) -> Iterator[Shell]:
        """A session that stays; its client is killed at the end."""
        with subprocess.Popen(
            self.command("sh", port=port), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                yield Shell(process)
            finally:
                process.kill()

    def _ssh(self, port: int) -> list[str]:
        settings = {
            "UserKnownHostsFile": self.directory / "known",
            "StrictHostKeyChecking": "accept-new",
            "HostKeyAlias": "vip",  # both servers have the same key
            "IdentityFile": self.directory / "key",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "10",
            "LogLevel": "ERROR",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-p", f"{port}", *options, f"root@{VIP}"]


@dataclass(frozen=True)
class Shell:
    """A shell on the far side of a session."""

    process: subprocess.Popen[bytes]

    def says(self, line: str) -> str:
        """What it answers to a line, one line. Raises EOFError where the session is over."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        answer = self.process.stdout.readline()
        if not answer:
            raise EOFError
        return answer.decode().strip()

    @property
    def peer(self) -> tuple[str, int]:
        """Whom the server sees as the client."""
        address, port, *_ = self.says("echo $SSH_CONNECTION").split()
        return address, int(port)

    @property
    def backend(self) -> str:
        address = self.says("echo $SSH_CONNECTION").split()[2]
        return next(name for name, server in SERVERS.items() if server == address)


@contextmanager
def servers(lab: Lab) -> Iterator[Client]:
    """sshd on both servers' hosts, with a host key of their own, and a client that they know."""
    directory = lab.directory / "ssh"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where Debian's sshd separates privileges
    for name in ("host", "key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(keygen, check=True)
    with ExitStack() as running:
        for host in SERVERS:
            running.enter_context(sshd(lab, host))
        yield Client(lab, directory)


@contextmanager
def sshd(lab: Lab, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of them; its sessions end with it."""
    directory, address = lab.directory / "ssh", SERVERS[host]
    settings = {
        "ListenAddress": f"{address}:{PORT}",
        "HostKey": directory / "host",
        "AuthorizedKeysFile": directory / "key.pub",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "MaxStartups": "100",
    }
    file = directory / f"{host}.conf"
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    log = directory / f"{host}.log"
    command = lab.command(host, "/usr/sbin/sshd", "-D", "-E", str(log), "-f", str(file))
    with subprocess.Popen(command) as process:
        try:
            until(lambda: log.exists() and "listening" in log.read_text(), 5, "sshd listens")
            yield process
        finally:
            process.terminate()
