"""`make install` puts everything in its place, and `make uninstall` leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.install.host import SCRIPT, Host, copied, host, tree

pytestmark = pytest.mark.root

PROGRAMS = ("balancer", "packetbridge")


def users(of: Host) -> str:
    return (of.etc / "passwd").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_commands_run(installed: Host, prefix: Path, program: str) -> None:
    command = prefix / "sbin" / program
    assert re.fullmatch(rf"{program} \d.*\n", installed.run(command, "--version"))
    example = prefix / "share" / "doc" / "l3dsr" / "examples" / f"{program}.toml"
    told = installed.result(command, "check", "--config", example, network=False)
    assert "the configuration is valid" in told.stdout
    assert "datapath ebpf" not in told.stderr


def test_the_kernels_part_is_built(installed: Host, prefix: Path) -> None:
    command = prefix / "sbin" / "balancer"
    told = installed.run(command, "check", "--datapath", "ebpf", network=False)
    assert "the configuration is valid" in told
    objects = [path.name for path in prefix.rglob("*.bpf.o")]
    assert sorted(objects) == ["splice.bpf.o", "steer.bpf.o"]


def test_the_programs_have_an_environment_of_their_own(installed: Host, prefix: Path) -> None:
    """Not the tests' tools, nor what built them."""
    (packages,) = (prefix / "lib" / "l3dsr" / "venv" / "lib").glob("python3*/site-packages")
    names = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    wanted = {"l3dsr_hash_balancer", "click", "netfilterqueue", "pyroute2", "scapy", "siphash24"}
    wanted |= {"aiohttp", "prometheus_client", "prompt_toolkit", "rich"}
    assert wanted <= names
    assert not names & {"pip", "setuptools", "wheel", "pytest", "mypy", "ruff", "hypothesis"}


def test_the_services_have_a_user(installed: Host) -> None:
    (entry,) = (line for line in users(installed).splitlines() if line.startswith("l3dsr:"))
    assert entry.endswith("/nologin")
    assert int(entry.split(":")[2]) < 1000


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_units_name_what_is_there(installed: Host, prefix: Path, program: str) -> None:
    unit = prefix / "lib" / "systemd" / "system" / f"{program}.service"
    told = installed.result(
        "systemd-analyze", "verify", "--recursive-errors=no", unit, MANPATH=prefix / "share" / "man"
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    assert "/usr/local" not in unit.read_text()


def test_uninstalling_leaves_nothing(tmp_path: Path) -> None:
    """What was in the same directories before stays, also after a second installation over the
    first one; the key is root's again."""
    prefix = tmp_path / "prefix"
    (prefix / "sbin").mkdir(parents=True)
    (prefix / "sbin" / "other").write_text("somebody else's")
    (prefix / "share" / "man").mkdir(parents=True)
    with host(tmp_path) as made:
        before, users_before = tree(prefix), users(made)
        made.install(prefix)
        once = tree(prefix)
        made.install(prefix)
        assert tree(prefix).keys() == once.keys()

        key = made.etc / "l3dsr" / "key"
        made.run(prefix / "sbin" / "balancer", "keygen")
        made.run(prefix / "lib" / "l3dsr" / "prepare", "l3dsr", network=False)
        assert key.stat().st_uid != 0

        made.uninstall(prefix)
        assert tree(prefix) == before
        assert users(made) == users_before
        assert key.stat().st_uid == 0
        assert made.result(SCRIPT, "uninstall", network=False, PREFIX=prefix).returncode == 1


def test_a_package_is_made_without_touching_the_host(tmp_path: Path) -> None:
    """Nor the checkout; below DESTDIR, with nothing in it that names that directory, or the one it
    was built in."""
    stage, copy = tmp_path / "stage", copied(tmp_path / "checkout")
    stage.mkdir()
    with host(tmp_path) as made:
        before = tree(made.etc), tree(copy)
        script = copy / "provisioning" / "install.sh"
        made.run(script, "install", PREFIX="/opt/l3dsr", DESTDIR=stage)
        assert (tree(made.etc), tree(copy)) == before
        assert [path.name for path in stage.iterdir()] == ["opt"]
        assert made.result("grep", "-rl", "-e", stage, "-e", "/tmp/tmp[.]", stage).stdout == ""
        script = (stage / "opt/l3dsr/lib/l3dsr/venv/bin/balancer").read_text()
        assert script.startswith("#!/opt/l3dsr/lib/l3dsr/venv/bin/python\n")
        made.uninstall("/opt/l3dsr", stage)
        assert tree(stage) == {}
