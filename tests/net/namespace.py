"""A network namespace of a test's own, and Python run in it."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import netns

ROOT = Path(__file__).parents[2]


class Namespace:
    """A namespace with two connected interfaces, `eth0` (192.168.33.10/24, .20 as well) and `eth1`.

    Entered with nsenter --net, as `ip netns exec` would also remount /sys. As a lab's, its name
    begins with LAB_NAME, so that tests of several checkouts do not meet.
    """

    def __init__(self, name: str) -> None:
        self.name = name = f"{os.environ.get('LAB_NAME', 'l3dsr')}t-{name}"
        self.delete()
        _run(["ip", "netns", "add", name])
        self.shell("ip link set lo up")
        self.shell("ip link add eth0 type veth peer name eth1")
        self.shell("ip link set eth0 up && ip link set eth1 up")
        self.shell("ip address add 192.168.33.10/24 dev eth0")

    def delete(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)

    def shell(self, command: str) -> str:
        """Output of a shell command in the namespace; fails the test with its error message."""
        return _run([*self.enter(), "sh", "-c", command])

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """What a function returns that runs in the namespace, in a Python of its own."""
        code = (
            "import pickle, sys\n"
            "function, arguments = pickle.load(sys.stdin.buffer)\n"
            "sys.stdout.buffer.write(pickle.dumps(function(*arguments)))"
        )
        done = subprocess.run(
            [*self.enter(), sys.executable, "-c", code],
            input=pickle.dumps((function, arguments)),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr.decode()
        return pickle.loads(done.stdout)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace."""
        netns.pushns(self.name)
        try:
            yield
        finally:
            netns.popns()

    def start(self, code: str) -> "subprocess.Popen[str]":
        """Python code left running in the namespace; the caller ends it."""
        return subprocess.Popen(
            [*self.enter(), sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )

    def enter(self) -> list[str]:
        """What a command line in the namespace begins with."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
