"""Commands to the lab's running programs, as their users give them, or by the socket itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from common.adapters.control.client import ControlClient, connect
from tests.e2e.lab import ROOT, Lab


def socket_of(lab: Lab, program: str) -> Path:
    return lab.directory / "run" / f"{program}.sock"


def line(lab: Lab, program: str, *words: str) -> list[str]:
    """The command line of a command."""
    kind = "balancer" if program == "balancer" else "packetbridge"
    command = str(ROOT / ".venv" / "bin" / kind)
    return [command, *words, "--socket", str(socket_of(lab, program))]


def give(lab: Lab, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Give a command, whatever becomes of it."""
    return subprocess.run(
        line(lab, program, *words), capture_output=True, text=True, timeout=60, check=False
    )


def told(lab: Lab, program: str, *words: str) -> str:
    """What a command says; it succeeds."""
    done = give(lab, program, *words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def seen(lab: Lab, program: str, *words: str) -> Any:
    """The same as JSON."""
    return json.loads(told(lab, program, *words, "--json"))


def client(lab: Lab, program: str = "balancer") -> ControlClient:
    return connect(str(socket_of(lab, program)), program)


def backend(lab: Lab, name: str) -> dict[str, Any]:
    """What the balancer says of a backend of the lab's only pool."""
    with client(lab) as asking:
        return next(each for each in asking.all("backends") if each["name"] == name)
