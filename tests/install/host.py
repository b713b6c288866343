"""A host to install on: this machine's files, but with an /etc, a bpffs and a network of its
own, so that what is installed is nobody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "provisioning" / "install.sh"
OWN = """
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount -t bpf own /sys/fs/bpf
touch "$1/xtables.lock"
[ ! -e /run/xtables.lock ] || mount --bind "$1/xtables.lock" /run/xtables.lock
echo ready
exec sleep infinity
"""


def copied(directory: Path) -> Path:
    """The checkout, without what was built in it or is somebody's state: some of that is no file
    that can be copied, as in the Vagrant check's boxes, which have a /proc."""
    made = ".*", "__pycache__", "*.bpf.o", "*egg-info", "build"
    shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*made))
    return directory


class Host:
    """Commands on it see `directory`, which is the test's, as everything else of this machine."""

    def __init__(self, directory: Path, holder: int) -> None:
        self.directory, self._holder = directory, holder
        self.etc = directory / "etc"

    def result(
        self, *command: str | Path, network: bool = True, **environment: str | Path
    ) -> subprocess.CompletedProcess[str]:
        """A command's exit status and output. With this machine's ``network``, or one without
        anything in it."""
        enter = ["nsenter", f"--target={self._holder}", "--mount", *([] if network else ["--net"])]
        return subprocess.run(
            [*enter, "--", *map(str, command)],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def run(self, *command: str | Path, network: bool = True, **environment: str | Path) -> str:
        """A command's output; fails the test with its error message."""
        done = self.result(*command, network=network, **environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, prefix: Path | str, destdir: Path | str = "") -> None:
        self.run(SCRIPT, "install", PREFIX=prefix, DESTDIR=destdir)

    def uninstall(self, prefix: Path | str, destdir: Path | str = "") -> None:
        self.run(SCRIPT, "uninstall", network=False, PREFIX=prefix, DESTDIR=destdir)


@contextmanager
def host(directory: Path) -> Iterator[Host]:
    """One that lasts as long as the test."""
    alone = ["unshare", "--mount", "--net", "--propagation=private"]
    with subprocess.Popen(
        [*alone, "sh", "-ec", OWN, "sh", str(directory)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            yield Host(directory, holder.pid)
        finally:
            holder.kill()


def tree(directory: Path) -> dict[str, str]:
    """What is in a directory, by path: its kind and mode, and where a link leads."""
    found = {}
    for path in sorted(directory.rglob("*")):
        leads = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(directory))] = f"{path.lstat().st_mode:o} {leads}"
    return found
