"""The systemd units: sound, as systemd sees it, and closed to what the programs do not need."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "provisioning" / "systemd"
EXPOSURE = "18"  # tenths: systemd's number for what a unit leaves open, of 100

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (make packages)"
)
programs = pytest.mark.parametrize("program", ["balancer", "packetbridge"])


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


@needs_systemd
@programs
def test_a_unit_is_sound(program: str, tmp_path: Path) -> None:
    text = (UNITS / f"{program}.service").read_text()
    text = text.replace("/usr/local/sbin/", f"{ROOT}/.venv/bin/")
    text = text.replace("/usr/local/lib/l3dsr/", f"{UNITS}/")
    unit = tmp_path / f"{program}.service"
    unit.write_text(text)
    told = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@needs_systemd
@programs
def test_a_unit_leaves_little_open(program: str) -> None:
    unit = str(UNITS / f"{program}.service")
    told = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert told.returncode == 0, told.stdout[-200:]


def test_both_units_are_as_closed() -> None:
    """What they say of the service manager's part differs in the program's name only."""
    texts = []
    for program in ("balancer", "packetbridge"):
        text = (UNITS / f"{program}.service").read_text()
        texts.append(re.sub("^Description=.*", "", text, flags=re.MULTILINE).replace(program, "?"))
    assert texts[0] == texts[1]
