"""The programs' `doctor` on the lab's hosts, and its commands run there."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.e2e.lab import CONFIGURATIONS, ROOT, Lab

ELSEWHERE = "see the lines above: a route, other rules"


class Doctor:
    """The doctor of the program on a host."""

    def __init__(self, lab: Lab, host: str, *flags: str) -> None:
        self._lab, self._host = lab, host
        name = "balancer" if host == "balancer" else "packetbridge"
        configuration = lab.directory / "etc" / CONFIGURATIONS[host]
        command = [ROOT / ".venv" / "bin" / name, "--config", configuration, "doctor", "--json"]
        self._command = [*map(str, command), *flags]

    def lines(self, *before: str) -> list[dict[str, str]]:
        """``before`` is what the command is run by."""
        done = self._lab.result(self._host, *before, *self._command)
        assert done.stderr == ""
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.returncode == any(line["verdict"] == "not ok" for line in found)
        return found

    def ailing(self, *before: str) -> list[dict[str, str]]:
        return [line for line in self.lines(*before) if line["verdict"] in ("not ok", "warning")]

    def mends(self, *subjects: str, before: Sequence[str] = ()) -> list[dict[str, str]]:
        """These ail, and nothing else; the printed commands mend them. Gives what was said."""
        ailing = self.ailing(*before)
        assert {line["subject"] for line in ailing} == set(subjects)
        for line in ailing:
            if line["mend"] != ELSEWHERE:
                command = f"cd {ROOT} && {line['mend']}"
                self._lab.run(self._host, *before, "sh", "-c", command)
        assert self.ailing(*before) == []
        return ailing
