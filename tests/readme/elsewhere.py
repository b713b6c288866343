"""Commands on the pages that their own tests do not type, and what does."""

from __future__ import annotations

STAGES = "tests/vagrant/stages.sh"
INSTALL = "tests/install/test_install.py"
UNITS = "tests/unit/test_units.py"

# A file, and the words in it that run the command.
ELSEWHERE = {
    # What every target of the Makefile does where a package is missing.
    "apt-get update": ("provisioning/packages.sh", "apt-get update"),
    "make test": (".ci/run", "make test"),
    "make check": (".ci/run", "make check"),
    "LAB_DATAPATH=ebpf make test": (".ci/run", "LAB_DATAPATH=ebpf make test"),
    "LAB_TOPOLOGY=routed make lab": ("tests/e2e/routed.py", '"routed"'),
    ".venv/bin/python -m tests.resources.idle_flows balancer": (
        "tests/resources/test_memory.py",
        '"-m", "tests.resources.idle_flows"',
    ),
    "ip route add BRIDGE via ROUTER mtu 1400": (
        "tests/e2e/test_routed_hosts.py",
        '"ip", "route", "add", destination, "via", FRONT, "mtu"',
    ),
    "tcpdump -ni any icmp": ("tests/e2e/capture.py", "tcpdump"),
    "make install": (INSTALL, "made.install(prefix)"),
    "make uninstall": (INSTALL, "made.uninstall(prefix)"),
    "pip install .": ("tests/install/test_pip.py", 'pip(made, "install")'),
    "systemd-analyze security": (UNITS, '"security"'),
}

# Targets that take minutes or hours; `make test` runs the same tests in their short form.
ON_DEMAND = {
    "HYPOTHESIS_PROFILE=long make test",
    "make soak",
    "make bench",
    "make bench BENCH_ARGS=--quick",
    "make growth",
    "make kernel-check",
}
