"""`doctor`: every prerequisite of a program on this host, and whether it is met."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from common.program.commands import C, Program, merged, with_flags
from common.program.examination import Line, Verdict
from common.program.reporting import FAILED, HOST_ERRORS, failures

HELP = """Look at all that this host needs, and say of each whether it is there.

Unlike check it names what is well, too, and looks outward: at the firewall's other rules and, from
a balancer, at the way to its bridges and at their clocks. It changes nothing and may be asked
while the program runs. The exit code is 1 if anything is not ok, root's privileges included.
"""
WIDTH = max(len(verdict) for verdict in Verdict)


def command(program: Program[C]) -> click.Command:
    @click.command(help=HELP)
    @with_flags(program.flags)
    @click.option("--json", "as_json", is_flag=True, help="A list of objects in place of lines.")
    @click.pass_obj
    def doctor(before: dict[str, Any], /, as_json: bool, **flags: Any) -> None:
        configuration = program.configuration(merged(before, flags))
        with failures(program.name, *HOST_ERRORS):
            lines = list(program.examine(configuration))
        text = json.dumps([asdict(line) for line in lines], indent=1) if as_json else table(lines)
        click.echo(text)
        if any(line.verdict is Verdict.NOT_OK for line in lines):
            raise SystemExit(FAILED)

    return doctor


def table(lines: Iterable[Line]) -> str:
    """A line each, and below it what mends it."""
    lines = list(lines)
    subjects = max(len(line.subject) for line in lines)
    text = []
    for line in lines:
        text.append(f"{line.verdict:{WIDTH}}  {line.subject:{subjects}}  {line.found}")
        if line.mend:
            text.append(f"{'':{WIDTH}}  {'':{subjects}}  mend: {line.mend}")
    return "\n".join(text)
