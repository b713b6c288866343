"""The balancer's commands for its running self."""

from __future__ import annotations

import json
from typing import Any

import click

from balancer.core.config import Config
from balancer.core.config.program import Control
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
from common.program.control.remote import Remote
from common.program.control.trace_cli import trace_command

DRAIN = """Give a backend, POOL/BACKEND, no new connections; those that it has go on.

`backends` shows how many are left. `ready` is the way back.
"""
READY = "Give a drained backend, POOL/BACKEND, new connections again."
WEIGHT = """Change a backend's weight, 0 to 1000, until the program ends.

A reload keeps it, unless it brings another weight for this backend itself.
"""
ADD = "Take a new backend into a running pool, until the program ends or a reload does not name it."
REMOVE = "Take a backend, POOL/BACKEND, out of its running pool; connections that it has go on."


def commands(program: Program[Config]) -> list[click.Command]:
    """All of them, by what they do."""
    controlled = Controlled(program, Control().socket, _tables, _backend_name)
    weight = click.IntRange(0, 1000)
    promptable = [
        *basics(controlled),
        _flows(controlled),
        backends_command(controlled, click.option("--pool", metavar="NAME", help="Only of this.")),
        changing(controlled, "drain", DRAIN),
        changing(controlled, "ready", READY),
        changing(controlled, "weight", WEIGHT, click.argument("weight", type=weight)),
        changing(
            controlled,
            "add",
            ADD,
            click.option("--bridge", metavar="ADDRESS", required=True, help="Its packetbridge's."),
            click.option("--weight", type=weight, default=1, show_default=True, help="Its share."),
        ),
        changing(controlled, "remove", REMOVE),
        _explain(controlled),
        top_command(controlled),
        trace_command(controlled),
    ]
    return [*promptable, shell_command(controlled, promptable)]


def _tables() -> Any:
    from balancer.program.control import tables  # noqa: PLC0415 - takes a tenth of a second

    return tables


def _backend_name(backend: dict[str, Any]) -> str:
    return f"{backend['pool']}/{backend['name']}"


def _flows(controlled: Controlled) -> click.Command:
    return flows_command(
        controlled,
        click.option("--client", metavar="ADDRESS[:PORT]", help="Only this client's."),
        click.option("--service", metavar="NAME", help="Only of this service."),
        click.option("--backend", metavar="NAME", help="Only at this backend."),
        click.option(
            "--state",
            type=click.Choice(["waiting", "opening", "closed", "handed", "closing", "mapped"]),
            help="Only in this state: without a request, not inspected and unproven, ended without "
            "a request, at a bridge, over; of UDP.",
        ),
        click.option(
            "--protocol", type=click.Choice(["tcp", "udp"]), help="Only connections, or UDP's."
        ),
        LIMIT,
        JSON,
    )


def _explain(controlled: Controlled) -> click.Command:
    def explain(
        remote: Remote,
        method: str,
        url: str,
        headers: tuple[str, ...],
        sni: str,
        alpn: tuple[str, ...],
        source: str,
        service: str | None,
        as_json: bool,
    ) -> None:
        """Say where a request would go now, and why: route, pool, key, hash and backend, and who
        would be asked after it.

        URL is http://HOST/PATH or /PATH. For a service of TLS there are --sni and --alpn in place
        of METHOD and URL. Where nothing is read METHOD is tcp or udp, and URL the service's
        ADDRESS:PORT. The running {name} finds it by the functions that it takes real requests
        through; nothing is sent or counted.
        """
        found = remote.ask(
            "explain",
            method=method,
            url=url,
            headers=list(headers),
            sni=sni,
            alpn=list(alpn),
            source=source,
            service=service,
        )
        if as_json:
            click.echo(json.dumps(found, indent=1))
            return
        from common.program.control import rendering  # noqa: PLC0415 - takes a tenth of a second

        rendering.show(*controlled.tables().explained(found))

    return controlled.command(
        explain,
        "explain",
        click.argument("method", default=""),
        click.argument("url", default=""),
        click.option(
            "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Repeat for more."
        ),
        click.option("--sni", metavar="NAME", default="", help="The server's name, of TLS."),
        click.option("--alpn", metavar="PROTOCOL", multiple=True, help="Repeat for more."),
        click.option(
            "--source",
            metavar="ADDRESS[:PORT]",
            default="0.0.0.0",
            show_default=True,
            help="The client's address; its port counts only where nothing is read.",
        ),
        click.option("--service", metavar="NAME", help="Where the URL does not say which."),
        JSON,
    )
