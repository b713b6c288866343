"""The lab's programs as systemd's units run them: with the unit's capabilities and no others, as a
user without rights of its own, telling a socket how they are."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from tests.e2e.lab import CONFIGURATIONS, ROOT, Lab, until

UNITS = ROOT / "provisioning" / "systemd"
USER = "nobody"  # in place of the user that an installation makes
# A host's own, as systemd mounts the one and iptables-legacy makes the other: for root alone; and
# the unit's RuntimeDirectory. And the checkout, where whoever is not root can get at it: the tests
# may run in root's home.
HOST = """
if [ "$3" ]; then
    mount --bind "$2" /mnt
    mount -t tmpfs -o mode=0755 tmpfs "$3"
    mkdir -p "$2"
    mount --bind /mnt "$2"
fi
mount -t bpf -o mode=0700 own /sys/fs/bpf
mkdir -p /run/l3dsr
mount -t tmpfs -o "mode=0755,uid=$4" tmpfs /run/l3dsr
touch /run/xtables.lock
install -m 600 /dev/null "$1"
mount --bind "$1" /run/xtables.lock
echo ready
exec sleep infinity
"""


def kind(program: str) -> str:
    return "balancer" if program == "balancer" else "packetbridge"


def setting(program: str, name: str) -> str:
    """A setting of the program's unit."""
    text = (UNITS / f"{kind(program)}.service").read_text()
    (value,) = re.findall(f"^{name}=(.*)$", text, re.MULTILINE)
    return str(value)


def unprivileged(program: str) -> list[str]:
    """The beginning of a command line: what follows runs with what the unit gives it."""
    held = setting(program, "CapabilityBoundingSet")
    assert held == setting(program, "AmbientCapabilities")
    assert setting(program, "NoNewPrivileges") == "yes"
    wanted = ",".join(["-all", *(f"+{name[4:].lower()}" for name in held.split())])
    sets = [f"--{name}={wanted}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
    user = [f"--reuid={USER}", f"--regid={USER_GROUP}", "--clear-groups"]
    return ["setpriv", *user, *sets, "--no-new-privs", "--"]


def _group() -> str:
    asked = subprocess.run(["id", "-g", USER], check=True, capture_output=True, text=True)
    return asked.stdout.strip()


USER_GROUP = _group()


def closed_to_others(path: Path) -> str:
    """The first directory on the way to a path that others than its owner cannot pass; "": none."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & 0o001:
            return str(directory)
    return ""


class Service:
    """One of the lab's programs, which is not running, as a service; what its unit's manager would
    be told is in ``told``."""

    def __init__(self, lab: Lab, program: str, more: str = "", **changes: str) -> None:
        """``changes`` are the configuration's: key and value, as the file has them; ``more`` is
        added to it."""
        self._lab, self.program = lab, program
        text = (lab.directory / "etc" / CONFIGURATIONS[program]).read_text()
        changes.setdefault("socket", f'"/run/{setting(program, "RuntimeDirectory")}/control.sock"')
        for key, value in changes.items():
            text, count = re.subn(f"(?m)^{key} = .*$", f"{key} = {value}", text)
            assert count == 1, key
        self._file = lab.directory / "run" / f"{program}.toml"
        self._file.write_text(text + more)
        self._manager = lab.socket(program, socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind("\0manager")
        self._manager.setblocking(False)
        self._told: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start = 0
        own = ["unshare", "--mount", "--propagation=private", "sh", "-ec", HOST, "sh"]
        lock = lab.directory / "run" / f"{program}.lock"
        self._host = subprocess.Popen(
            [*own, str(lock), str(ROOT), closed_to_others(ROOT), USER],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._host.stdout is not None
        assert self._host.stdout.readline() == "ready\n"

    def on_host(self, *command: str) -> list[str]:
        """The command line of what root runs on the program's host."""
        files = ["nsenter", f"--mount=/proc/{self._host.pid}/ns/mnt", "--"]
        return [*files, *self._lab.command(self.program, *command)]

    def run(self, *command: str) -> str:
        """What a command of root's says on that host."""
        return subprocess.run(
            self.on_host(*command), capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def pins(self) -> list[str]:
        """What is pinned on that host, or was and has a directory still."""
        return self.run("find", "/sys/fs/bpf", "-mindepth", "2").splitlines()

    def start(self, iptables: str = "") -> None:
        """As its unit does, until it says that it is ready; with commands found in the directory
        ``iptables`` first."""
        key = str(self._lab.directory / "etc" / "key")
        self.run(str(UNITS / "prepare"), USER, key)
        self._start = self._lab.log_end(self.program)
        self._told.clear()
        with (self._lab.directory / "log" / f"{self.program}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": "@manager",
                    "PATH": f"{iptables}:{os.environ['PATH']}",
                },
            )
        (self._lab.directory / "run" / f"{self.program}.pid").write_text(f"{self.pid}\n")
        until(lambda: self.ended() or self.tells("READY=1"), 20, f"{self.program} is ready")
        assert not self.ended(), self.log()

    def command(self, *arguments: str) -> list[str]:
        """A command line of the program, as a service on its host."""
        program = str(ROOT / ".venv" / "bin" / kind(self.program))
        line = [*unprivileged(self.program), program, *arguments, "--config", str(self._file)]
        return self.on_host(*line)

    def told(self) -> list[str]:
        """What the manager was told since the last start, line by line."""
        while True:
            try:
                self._told += self._manager.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._told

    def tells(self, line: str) -> bool:
        return line in self.told()

    def log(self) -> str:
        """Since the last start."""
        return self._lab.log(self.program, self._start)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def tell(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Its exit status, negative for a signal."""
        self.tell(number)
        return self.status()

    def status(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None, "it was started"
        return self._process.wait(30)

    def flush(self) -> subprocess.CompletedProcess[str]:
        """The subcommand, with the service's rights."""
        return subprocess.run(
            self.command("flush"), capture_output=True, text=True, timeout=60, check=False
        )

    def close(self) -> None:
        """End it, whatever it does, and remove what it leaves."""
        if not self.ended():
            self.stop(signal.SIGKILL)
        self.flush()
        self._host.kill()
        self._host.communicate()
        self._manager.close()
