"""What idle flows cost: a promise to whoever plans a machine, kept by measuring."""

from __future__ import annotations

import subprocess
import sys

import pytest

FLOWS = 100_000
MOST = 100_000_000  # bytes of resident memory


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_idle_flows_fit_in_100_mb(program: str) -> None:
    command = [sys.executable, "-m", "tests.resources.idle_flows", program, str(FLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    print(done.stdout)
    figures = dict(word.split("=") for word in done.stdout.split()[1:])
    assert int(figures["flows"]) == FLOWS
    assert int(figures["after"]) < MOST
