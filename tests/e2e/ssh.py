"""Real SSH servers behind the VIP, as a service that nobody reads: the server speaks first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.controlled import told
from tests.e2e.lab import BRIDGE1, BRIDGE2, CONFIGURATIONS, SERVER1, SERVER2, VIP, Lab, until

PORT = 2222  # each source goes to one backend,
SPREAD = 2223  # and here each connection has a backend of its own,
REMOTE, NEAR = 2224, 2225  # here the first bridge's server sees the bridge, from afar or not
SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
BRIDGES = {"backend1": BRIDGE1, "backend2": BRIDGE2}

POOL = """
[[pools]]
name = "{name}"
policy = "{policy}"
key = "{key}"
{more}
backends = [{backends}]

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
    """For the balancer; ``more`` is for all pools."""
    first, second = (
        f'{{ name = "{name}", bridge = "{address}" }}' for name, address in BRIDGES.items()
    )
    both = {"vip": VIP, "more": more, "backends": f"{first}, {second}"}
    spread = {"policy": "round-robin", "key": "source-port"}
    one = {"policy": "maglev", "key": "source"}
    return (
        POOL.format(name="ssh", port=PORT, **one, **both)
        + POOL.format(name="spread", port=SPREAD, **spread, **both)
        + POOL.format(name="remote", port=REMOTE, **one, **both | {"backends": first})
        + POOL.format(name="near", port=NEAR, **one, **both | {"backends": first})
    )


def entries(backend: str, more: str = "") -> str:
    """For a bridge: all ports lead to one server, but for the first bridge's ``REMOTE``."""
    ways = {"bridge": BRIDGES[backend], "at": PORT}
    own = {"server": SERVERS[backend], "more": more}
    text = "".join(ENTRY.format(port=port, **own, **ways) for port in (PORT, SPREAD))
    if backend == "backend1":
        for port, server in ((REMOTE, "backend2"), (NEAR, "backend1")):
            seen_as = f'source = "bridge"\nports = "{port}0-{port}9"\n{more}'
            text += ENTRY.format(port=port, server=SERVERS[server], more=seen_as, **ways)
    return text


@contextmanager
def configured(lab: Lab, more: str, of_bridges: str, tail: str) -> Iterator[None]:
    """All services at all three programs, which read their files again for it; ``more`` is for the
    pools, ``of_bridges`` for their backends, and the bridges' files end with the ``tail``."""
    added = {"balancer": services(more)}
    added |= {host: entries(host, of_bridges) + tail for host in SERVERS}
    files = {program: lab.directory / "etc" / CONFIGURATIONS[program] for program in added}
    before = {program: file.read_text() for program, file in files.items()}
    try:
        for program in (*SERVERS, "balancer"):
            files[program].write_text(before[program] + added[program])
            told(lab, program, "reload")
        yield
    finally:
        for program, file in files.items():
            file.write_text(before[program])
            told(lab, program, "reload")


@dataclass(frozen=True)
class Client:
    """OpenSSH's, on the lab's client."""

    lab: Lab
    directory: Path
    daemons: dict[str, subprocess.Popen[bytes]]  # sshd by its host

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

    def banner(self, port: int = PORT) -> str:
        """The backend of a connection, by what it says first; the client says nothing."""
        with self.lab.connect(to=(VIP, port)) as tcp, tcp.makefile() as lines:
            return lines.readline().split()[-1]

    def start(self, host: str) -> None:
        """sshd on a server's host; its sessions outlive it."""
        settings = {
            "ListenAddress": f"{SERVERS[host]}:{PORT}",
            "HostKey": self.directory / "host",
            "AuthorizedKeysFile": self.directory / "key.pub",
            "PermitRootLogin": "prohibit-password",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "MaxStartups": "100",
            "VersionAddendum": host,
        }
        file, log = (self.directory / f"{host}.{kind}" for kind in ("conf", "log"))
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        log.unlink(missing_ok=True)
        sshd = ["/usr/sbin/sshd", "-D", "-E", str(log), "-f", str(file)]
        self.daemons[host] = subprocess.Popen(self.lab.command(host, *sshd))
        until(lambda: log.exists() and "listening" in log.read_text(), 5, "sshd listens")

    def stop(self, host: str) -> None:
        self.daemons[host].terminate()
        self.daemons[host].wait(5)

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
                with suppress(BrokenPipeError):  # what it had not got
                    process.communicate()

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
    client = Client(lab, directory, {})
    try:
        for host in SERVERS:
            client.start(host)
        yield client
    finally:
        for host in client.daemons:
            client.stop(host)
