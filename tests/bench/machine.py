"""What a result was measured on: the machine, and the version of everything that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

VERSIONS = {
    "HAProxy": ["haproxy", "-v"],
    "nginx": ["nginx", "-v"],
    "iptables": ["iptables", "--version"],
    "wrk": ["wrk", "-v"],
    "curl": ["curl", "--version"],
    "this": ["git", "describe", "--always", "--dirty"],
}


def description() -> dict[str, str]:
    found = {
        "processors": f"{os.cpu_count()} x {_processor()}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }
    for name, command in VERSIONS.items():
        found[name] = _first_line(command)
    return found


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _first_line(command: list[str]) -> str:
    """Of whatever a program says of itself, wherever it says it and with whatever exit status."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "unknown")
