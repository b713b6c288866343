"""`pip install .` alone: the commands work, and name what of Debian's they lack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.install.host import ROOT, Host, copied, host

pytestmark = pytest.mark.root

NETWORK = """
ip link set lo up
ip link add eth0 type veth peer name eth1
ip link set eth0 up
ip link set eth1 up
ip address add 192.168.33.10/24 dev eth0
sysctl -q -p "$1"
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a checkout, an environment that pip has installed it into, and a network that is
    the balancer's of the two-box lab."""
    directory = tmp_path_factory.mktemp("plain")
    copied(directory / "checkout")
    with host(directory) as made:
        made.run("/usr/bin/python3", "-m", "venv", directory / "venv")
        pip(made, "install")
        settings = ROOT / "provisioning" / "sysctl" / "balancer.conf"
        made.run("sh", "-ec", NETWORK, "sh", settings, network=False)
        made.run(directory / "venv" / "bin" / "balancer", "keygen")
        yield made


def pip(of: Host, *arguments: str) -> None:
    command = of.directory / "venv" / "bin" / "pip"
    of.run(command, *arguments, "--quiet", of.directory / "checkout")


def balancer(of: Host, *arguments: str) -> str:
    """What the command says, whatever becomes of it; it has three seconds."""
    command = of.directory / "venv" / "bin" / "balancer"
    told = of.result("timeout", "-s", "INT", "3", command, *arguments, network=False)
    return told.stdout + told.stderr


@contextmanager
def without(of: Host, *patterns: str) -> Iterator[None]:
    """Files that are there, but nothing is in them; for a while."""
    found = {path.resolve() for pattern in patterns for path in Path("/usr").glob(pattern)}
    assert found, patterns
    for path in found:
        of.run("mount", "--bind", "/dev/null", path)
    try:
        yield
    finally:
        for path in found:
            of.run("umount", path)


def test_the_commands_work(plain: Host) -> None:
    told = balancer(plain, "--datapath", "ebpf")
    assert " datapath ebpf: the kernel takes it" in told
    assert " ready: 192.168.33.10 port 80 " in told


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("lib/*/libnetfilter_queue.so.1", "libnetfilter-queue1"),
        ("lib/*/libbpf.so.1", "libbpf1"),
        ("sbin/iptables-save", "iptables"),
    ],
)
def test_a_missing_package_is_named(plain: Host, missing: str, package: str) -> None:
    with without(plain, missing):
        told = balancer(plain, "--datapath", "ebpf")
    assert f"apt-get install {package}" in told
    assert "Traceback" not in told
    assert " ready: " not in told
    assert plain.run("find", "/sys/fs/bpf/l3dsr", "-mindepth", "1") == ""


def test_without_a_compiler_for_ebpf_it_does_without(plain: Host) -> None:
    with without(plain, "bin/clang"):
        pip(plain, "install", "--no-deps", "--force-reinstall")
    told = balancer(plain)
    assert " datapath nfqueue: " in told
    assert "apt-get install clang" in told
    assert " ready: 192.168.33.10 port 80 " in told
    pip(plain, "install", "--no-deps", "--force-reinstall")
    assert " datapath ebpf: the kernel takes it" in balancer(plain)
