"""The bridge's commands for its running self."""

from __future__ import annotations

from typing import Any

import click

from common.program.commands import Program
from common.program.control.cli import (
    JSON,
    LIMIT,
    Controlled,
    backends_command,
    basics,
    changing,
    flows_command,
    shell_command,
    top_command,
)
from common.program.control.trace_cli import trace_command
from packetbridge.core.config import Config, Control

DRAIN = """Give new connections for a backend, ADDRESS:PORT of this bridge, back to the balancer.

Those that it has go on; `backends` shows how many are left. `ready` is the way back.
"""
READY = "Take new connections for a drained backend, ADDRESS:PORT of this bridge, again."


def commands(program: Program[Config]) -> list[click.Command]:
    """All of them, by what they do."""
    controlled = Controlled(program, Control().socket, _tables, lambda backend: backend["name"])
    promptable = [
        *basics(controlled),
        _flows(controlled),
        backends_command(controlled),
        changing(controlled, "drain", DRAIN),
        changing(controlled, "ready", READY),
        top_command(controlled),
        trace_command(controlled),
    ]
    return [*promptable, shell_command(controlled, promptable)]


def _flows(controlled: Controlled) -> click.Command:
    return flows_command(
        controlled,
        click.option("--client", metavar="ADDRESS[:PORT]", help="Only this client's."),
        click.option("--backend", metavar="ADDRESS:PORT", help="Only at this backend."),
        click.option(
            "--state",
            type=click.Choice(["syn_sent", "spliced", "closing", "linger", "mapped"]),
            help="Only in this state: the server is being asked, both sides stand, one has ended, "
            "both have; mapped, of UDP.",
        ),
        click.option("--protocol", type=click.Choice(["tcp", "udp"]), help="Only of this one."),
        LIMIT,
        JSON,
    )


def _tables() -> Any:
    from packetbridge.program.control import tables  # noqa: PLC0415 - takes a tenth of a second

    return tables
