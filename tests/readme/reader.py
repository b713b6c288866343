"""Somebody who does what the pages say: the lab's hosts, each with an /etc/l3dsr of its own, and
commands typed there as they are printed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.lab import CONFIGURATIONS, ROOT, Lab, namespace, until
from tests.readme.pages import commands

HERE = ""  # the checkout, outside of all hosts
OWN_ETC = """
mkdir -p /run/l3dsr
mount -t tmpfs tmpfs /run/l3dsr
mount --bind "$1/etc" /etc
mount --bind "$1/$2" /etc/l3dsr
cd "$1"
exec bash -ec "$3"
"""


class Reader:
    """``told`` are the commands that it has been given, ``typed`` those that it has typed."""

    def __init__(self, lab: Lab, name: str, directory: Path, told: Iterable[str]) -> None:
        self._lab, self._name, self._directory = lab, name, directory
        self.told_in_order = list(told)
        self.told = set(self.told_in_order)
        self.typed: set[str] = set()
        self._environment = {
            **os.environ,
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "LAB_NAME": name,
            "LAB_DIR": str(lab.directory),
            "LAB_DATAPATH": lab.datapath,
            "LOAD_SECONDS": "1",
            "no_proxy": "*",
        }

    def etc(self, host: str) -> Path:
        """The host's /etc/l3dsr, with the lab's key and the configuration of the host's program; of
        a host without a program: empty."""
        common, own = self._directory / "etc", self._directory / host
        if not common.exists():
            subprocess.run(["cp", "-a", "/etc", common], check=True, timeout=60)
            (common / "l3dsr").mkdir(exist_ok=True)
        if not own.exists():
            own.mkdir()
            if host in CONFIGURATIONS:
                name = "balancer" if host == "balancer" else "packetbridge"
                files = self._lab.directory / "etc"
                shutil.copy(files / CONFIGURATIONS[host], own / f"{name}.toml")
                shutil.copy(files / "key", own / "key")
        return own

    def types(self, command: str, host: str = HERE, **environment: str) -> str:
        """What the command says; it succeeds."""
        done = subprocess.run(
            self._line(command, host),
            cwd=ROOT,
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    @contextmanager
    def leaves_running(self, command: str, host: str, said: str) -> Iterator[subprocess.Popen[str]]:
        """What is typed runs, and has ``said`` that; Ctrl-C at the end, if it has not ended."""
        with subprocess.Popen(
            self._line(command, host),
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                assert running.stderr is not None
                lines = []
                for line in running.stderr:
                    lines.append(line)
                    if said in line:
                        break
                assert running.poll() is None, "".join(lines)
                yield running
            finally:
                running.send_signal(signal.SIGINT)
                running.communicate(timeout=20)

    def _line(self, command: str, host: str) -> list[str]:
        """The command line that types it: as printed, but for the name of the lab and its
        directory, which are not the usual ones."""
        assert command in self.told, f"the test does not say that it runs {command!r}"
        assert command in commands(), f"no page says {command!r}"
        self.typed.add(command)
        here = self._lab.directory.relative_to(ROOT)
        line = command.replace(".lab/", f"{here}/").replace(
            "/netns/l3dsr-", f"/netns/{self._name}-"
        )
        if host == HERE:
            return ["bash", "-ec", line]
        self.etc(host)
        enter = ["nsenter", f"--net={namespace(host, self._name)}", "--", "unshare", "--mount"]
        return [*enter, "sh", "-ec", OWN_ETC, "sh", str(self._directory), host, line]

    def tells(self, program: str, number: int, answer: str) -> None:
        """A signal to one of the lab's programs, and its answer in the log."""
        start = self._lab.log_end(program)
        os.kill(self._lab.pid(program), number)
        until(lambda: answer in self._lab.log(program, start), 5, f"{program}: {answer}")
