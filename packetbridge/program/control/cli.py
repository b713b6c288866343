"""The bridge's commands for its running self."""

from __future__ import annotations

from typing import Any

import click

from common.program.commands import Program
from common.program.control.cli import JSON, LIMIT, Controlled, basics, flows_command
from common.program.control.trace_cli import trace_command
from packetbridge.core.config import Config


def commands(program: Program[Config]) -> list[click.Command]:
    """All of them, by what they do."""
    controlled = Controlled(program, "/run/l3dsr/packetbridge.sock", _tables)
    return [
        *basics(controlled),
        flows_command(
            controlled,
            click.option("--client", metavar="ADDRESS[:PORT]", help="Only this client's."),
            click.option("--backend", metavar="ADDRESS:PORT", help="Only at this backend."),
            click.option(
                "--state",
                type=click.Choice(["syn_sent", "spliced", "closing", "linger"]),
                help="Only in this state: the server is being asked, both sides stand, one has "
                "ended, both have.",
            ),
            LIMIT,
            JSON,
        ),
        trace_command(controlled),
    ]


def _tables() -> Any:
    from packetbridge.program.control import tables  # noqa: PLC0415 - takes a tenth of a second

    return tables
