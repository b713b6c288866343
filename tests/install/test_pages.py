"""Setting up a host as the README says, after an installation below another directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.install.host import Host
from tests.readme.pages import commands

pytestmark = pytest.mark.root

SETTING_UP = [
    "balancer keygen",
    "cp /usr/local/share/doc/l3dsr/examples/balancer.toml /etc/l3dsr/",
    "cp /usr/local/share/doc/l3dsr/examples/sysctl-balancer.conf /etc/sysctl.d/l3dsr.conf",
    "sysctl -p /etc/sysctl.d/l3dsr.conf",
    "balancer check",
]


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_a_host_is_set_up(installed: Host, prefix: Path, program: str) -> None:
    """Up to `check`; network settings are those of the host's own namespace."""
    (installed.etc / "l3dsr" / "key").unlink(missing_ok=True)
    path = f"{prefix}/sbin:{os.environ['PATH']}"
    told = ""
    for command in SETTING_UP:
        assert command in commands()
        typed = command.replace("/usr/local", str(prefix)).replace("balancer", program)
        told = installed.run("sh", "-ec", typed, network=False, PATH=path)
    assert "the configuration is valid" in told
    assert installed.run("sysctl", "-n", "net.ipv4.ip_forward", network=False) == "1\n"


def test_the_pages_are_installed(prefix: Path) -> None:
    documents = prefix / "share" / "doc" / "l3dsr"
    assert (documents / "README.md").exists()
    assert (documents / "docs" / "way.svg").exists()
