"""Compiles the eBPF programs where clang can; without them ``datapath = "auto"`` says so and takes
the way through Python. Everything else is in pyproject.toml."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCES = ("balancer/fastpath/steer.bpf.c", "packetbridge/fastpath/splice.bpf.c")


class BuildWithObjects(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # `make bpf` compiles them in place
        for source in SOURCES:
            target = Path(self.build_lib, source).with_suffix(".o")
            target.unlink(missing_ok=True)  # an earlier build's
            compiling = [str(ROOT / "provisioning" / "bpf.sh"), str(ROOT / source), str(target)]
            try:
                subprocess.run(compiling, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                self.warn(
                    f"{source} is not compiled: {error}; for the kernel's path "
                    "`apt-get install clang libbpf-dev linux-libc-dev`, and install again"
                )


setup(cmdclass={"build_py": BuildWithObjects})
