"""Fuzzes one program's core, and prints what came of it as JSON.

    python -m tests.fuzz.run balancer|packetbridge PACKETS SEED [MEASURED]

The first MEASURED packets run under `coverage`, to say what they reach, the others at full speed;
so does the programs' end, where there are no others.
A core that raises ends this with its traceback, the packet and how many came before it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile

import coverage

PARTS = 20  # in which memory is looked at
# Of the cores' files those that no packet, timer or operator of a core gets to.
NOT_PACKETS = [
    *("balancer/core/config/*", "packetbridge/core/config.py", "packetbridge/core/checking.py"),
    *("common/core/config.py", "common/core/settings.py"),  # what a file may say
    "*/core/rules.py",  # the firewall's
    "common/core/keys.py",  # files of keys, and their replacement
    "*/adoption.py",  # after a restart, from the kernel's records
    "common/core/clock_exchange.py",  # mostly what asks
    # the agent's, and the command line's:
    *("common/core/access_lines.py", "common/core/agent_settings.py"),
    *("common/core/bridge_health.py", "common/core/metrics.py", "common/core/program_metrics.py"),
]


def main(program: str, packets: int, seed: int, measured: int) -> dict[str, object]:
    packages = [f"{program}.core", "common.core"]
    watch = coverage.Coverage(
        branch=True, source=packages, omit=NOT_PACKETS, data_file=None, config_file=False
    )
    watch.start()
    from tests.fuzz import worlds  # the cores are imported under the watch  # noqa: PLC0415

    fuzzed = worlds.Fuzzed(program, random.Random(seed))
    fuzzed.run(measured)
    ended = fuzzed.finish() if measured == packets else None
    watch.stop()
    total, missing = _covered(watch)
    resident = [worlds.resident()]
    for part in range(PARTS):
        fuzzed.run(
            (packets - measured) * (part + 1) // PARTS - (packets - measured) * part // PARTS
        )
        resident.append(worlds.resident())
        print(fuzzed.fed, file=sys.stderr, flush=True)
    ended = ended or fuzzed.finish()
    return {**ended, **total, "missing": missing, "resident": resident}


def _covered(watch: coverage.Coverage) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Shares of lines and branches that ran, and the lines that did not, by file."""
    with tempfile.NamedTemporaryFile() as file:
        watch.json_report(outfile=file.name)
        found = json.load(file)
    total = found["totals"]
    missing = {name: file["missing_lines"] for name, file in found["files"].items()}
    return {
        "lines": total["covered_lines"] / total["num_statements"],
        "branches": total["covered_branches"] / total["num_branches"],
    }, {name: lines for name, lines in missing.items() if lines}


if __name__ == "__main__":
    name, count, seed, *rest = sys.argv[1:]
    print(json.dumps(main(name, int(count), int(seed), int(rest[0]) if rest else 0)))
