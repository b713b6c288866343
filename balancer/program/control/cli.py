"""The balancer's commands for its running self."""

from __future__ import annotations

from typing import Any

import click

from balancer.core.config import Config
from balancer.core.config.program import Control
from common.program.commands import Program
from common.program.control.cli import JSON, LIMIT, Controlled, basics, listing
from common.program.control.remote import Remote
from common.program.control.trace_cli import trace_command


def commands(program: Program[Config]) -> list[click.Command]:
    """All of them, by what they do."""
    controlled = Controlled(program, Control().socket, _tables)
    return [
        *basics(controlled),
        _flows(controlled),
        trace_command(controlled),
    ]


def _tables() -> Any:
    from balancer.program.control import tables  # noqa: PLC0415 - takes a tenth of a second

    return tables


def _flows(controlled: Controlled) -> click.Command:
    listed = listing(controlled, "flows", lambda tables: tables.flows)

    def flows(remote: Remote, killed: str | None, **filters: Any) -> None:
        """List connections, or end one.

        A connection that is ended is reset for its client, and its server is told.
        """
        if killed is not None:
            for each in remote.ask("kill", flow=killed)["killed"]:
                click.echo(f"{each} is ended")
        else:
            listed(remote, **filters)

    return controlled.command(
        flows,
        "flows",
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
        click.option(
            "--kill", "killed", metavar="ID|ADDRESS:PORT", help="End the connection of that name."
        ),
    )
