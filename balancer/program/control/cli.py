"""The balancer's commands for its running self."""

from __future__ import annotations

from typing import Any

import click

from balancer.core.config import Config
from balancer.core.config.program import Control
from common.program.commands import Program
from common.program.control.cli import JSON, LIMIT, Controlled, basics, flows_command
from common.program.control.trace_cli import trace_command


def commands(program: Program[Config]) -> list[click.Command]:
    """All of them, by what they do."""
    controlled = Controlled(program, Control().socket, _tables)
    return [
        *basics(controlled),
        flows_command(
            controlled,
            click.option("--client", metavar="ADDRESS[:PORT]", help="Only this client's."),
            click.option("--service", metavar="NAME", help="Only of this service."),
            click.option("--backend", metavar="NAME", help="Only at this backend."),
            click.option(
                "--state",
                type=click.Choice(["waiting", "closed", "handed", "closing"]),
                help="Only in this state: without a request, ended without one, at a bridge, over.",
            ),
            LIMIT,
            JSON,
        ),
        trace_command(controlled),
    ]


def _tables() -> Any:
    from balancer.program.control import tables  # noqa: PLC0415 - takes a tenth of a second

    return tables
