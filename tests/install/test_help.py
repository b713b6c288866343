"""The manual's pages and the shells' completions, as they are installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.install.host import Host
from tests.install.terminal import terminal

pytestmark = pytest.mark.root

COMMANDS = {
    "balancer": {"check", "decode", "flush", "keygen"},
    "packetbridge": {"check", "flush", "keygen"},
}


@pytest.fixture
def manual(prefix: Path) -> Path:
    return prefix / "share" / "man"


@pytest.mark.parametrize("program", COMMANDS)
def test_every_command_has_a_page(manual: Path, program: str) -> None:
    pages = {path.name for path in (manual / "man8").glob(f"{program}*")}
    wanted = {f"{program}.8", *(f"{program}-{command}.8" for command in COMMANDS[program])}
    assert pages >= wanted


def test_pages_have_no_mistakes(manual: Path) -> None:
    for page in (manual / "man8").iterdir():
        for command in (
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
            ["mandoc", "-T", "lint", "-W", "warning", page],
        ):
            told = subprocess.run(
                command,
                stdout=subprocess.DEVNULL if command[0] == "man" else subprocess.PIPE,
                stderr=subprocess.STDOUT if command[0] == "mandoc" else subprocess.PIPE,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
                text=True,
                check=False,
            )
            said = (told.stdout or "") + (told.stderr or "")
            assert (told.returncode, said) == (0, ""), page


def test_pages_say_what_help_says(installed: Host, prefix: Path, manual: Path) -> None:
    def page(name: str) -> str:
        width = {"MANPATH": str(manual), "MANWIDTH": "110", "LC_ALL": "C.UTF-8"}
        return installed.run("man", "8", name, **width)

    balancer = page("balancer")
    for words in (
        "--bridge ADDRESS",
        "EXAMPLES",
        "FILES",
        "SIGNALS",
        "EXIT CODES",
        "balancer-check(8)",
    ):
        assert words in balancer
    for line in installed.run(prefix / "sbin" / "balancer", "--help").splitlines():
        if line.strip().startswith("SIG"):
            assert line.strip() in balancer
    assert "packetbridge keygen --switch " in page("packetbridge-keygen")


@pytest.mark.parametrize("program", COMMANDS)
def test_bash_completes(prefix: Path, program: str) -> None:
    script = prefix / "share" / "bash-completion" / "completions" / program
    path = f"{prefix}/sbin:/usr/bin:/bin"
    with terminal("bash", "--norc", "--noprofile", "-i", PATH=path, PS1="> ") as bash:
        bash.types(f"source {script}; echo sour''ced\n")
        assert bash.shows("sourced")
        bash.types(f"{program} key\t--sw\t; echo do''ne\n")
        assert bash.shows(f"{program} keygen --switch ")
        assert bash.shows("done")
        bash.types(f"{program} --datapath nf\t; echo do''ne\n")
        assert bash.shows(f"{program} --datapath nfqueue ")


@pytest.mark.parametrize("program", COMMANDS)
def test_zsh_completes(prefix: Path, program: str) -> None:
    functions = prefix / "share" / "zsh" / "site-functions"
    path = f"{prefix}/sbin:/usr/bin:/bin"
    with terminal("zsh", "-f", "-i", PATH=path, PS1="> ") as zsh:
        zsh.types(
            f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n"
        )
        assert zsh.shows("ready")
        for _ in range(2):  # the second time it is loaded already
            zsh.types(f"{program} keyg\t")
            assert zsh.shows(f"{program} keygen ")
            zsh.types("--sw\t")
            assert zsh.shows("--switch ")
            zsh.types("; echo do''ne\n")
            assert zsh.shows("done")
