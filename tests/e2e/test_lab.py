"""The lab itself: what its scripts take for the state of a program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.lab import Lab

pytestmark = pytest.mark.root

# nginx opens its PID file, which empties it, and writes to it a moment later: a longer moment here.
SLOW_TO_WRITE = """#!/bin/sh
nginx=$(PATH=${PATH#*:} command -v nginx)
: >"$(sed -n 's/^pid "\\(.*\\)";$/\\1/p' "$2")"
sleep 0.5
exec "$nginx" "$@"
"""


def test_a_server_that_has_not_written_its_pid_yet_has_not_ended(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "nginx").write_text(SLOW_TO_WRITE)
    (tmp_path / "nginx").chmod(0o755)
    lab.script("restart", "nginx-backend2", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert lab.alive("nginx-backend2")
