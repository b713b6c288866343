"""The commands that both programs have for their running selves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import click

from common.program.commands import C, Flag, Program, with_flags
from common.program.control.names import BackendName
from common.program.control.remote import Failure, Remote, socket_of

JSON: Flag = click.option("--json", "as_json", is_flag=True, help="JSON in place of tables.")
LIMIT: Flag = click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="Rows at most."
)


class Tables(Protocol):
    """What a program's answers look like."""

    def status(self, status: dict[str, Any]) -> list[Any]: ...

    def backends(self, backends: list[dict[str, Any]]) -> list[Any]: ...

    def flows(self, flows: list[dict[str, Any]]) -> list[Any]: ...

    def explained(self, found: dict[str, Any]) -> list[Any]: ...


class Controlled:
    """A program that is commanded while it runs; ``socket`` is where it listens by default,
    ``tables`` imports what its answers look like, and ``backend_name`` gives a backend's name, as
    commands take it, from what `backends` says of it."""

    def __init__(
        self,
        program: Program[C],
        socket: str,
        tables: Callable[[], Tables],
        backend_name: Callable[[dict[str, Any]], str],
    ) -> None:
        self.name = program.name
        self.tables = tables
        self.backend_name = backend_name
        self._program = program
        self._socket = socket

    def remote(self, before: dict[str, Any], file: str | None, socket: str | None) -> Remote:
        """The running program that flags before and after a subcommand's name lead to."""
        chosen = socket or before.get("socket")
        standard = self._program.standard_file
        path = chosen or socket_of(standard, self._socket, file or before.get("file"))
        return Remote(self.name, path)

    def command(self, function: Callable[..., None], name: str, *flags: Flag) -> click.Command:
        """A command whose function gets a Remote first; its help is the function's docstring."""

        @with_flags((*flags, *self._reaching()))
        @click.pass_obj
        def run(
            before: dict[str, Any] | None,
            /,
            reached_file: str | None,
            reached_socket: str | None,
            **arguments: Any,
        ) -> None:
            function(self.remote(before or {}, reached_file, reached_socket), **arguments)

        text = (function.__doc__ or "").format(name=self.name)
        return click.command(name=name, help=_paragraphs(text))(run)

    def _reaching(self) -> tuple[Flag, ...]:
        return (
            click.option(
                "--config",
                "reached_file",
                metavar="FILE",
                help="The configuration of the program that runs, which names its socket.",
            ),
            click.option(
                "--socket", "reached_socket", metavar="PATH", help="The socket of the program."
            ),
        )


def _paragraphs(text: str) -> str:
    """A docstring without the indentation of its lines."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def basics(controlled: Controlled) -> list[click.Command]:
    """status, reload, log-level."""

    def status(remote: Remote, as_json: bool) -> None:
        """Say what the running {name} does: what it serves, its tables, and all it has counted."""
        found = remote.ask("status")
        _show(as_json, found, lambda: controlled.tables().status(found))

    def reload(remote: Remote) -> None:
        """Have the running {name} read its configuration and key file again.

        It is validated first, and takes effect at once and as a whole; a mistake leaves all as it
        is, and the exit code is 1. SIGHUP does the same.
        """
        with remote.client(timeout=60) as client:
            mistakes = client.ask("reload")["mistakes"]
        for mistake in mistakes:
            click.echo(mistake, err=True)
        if mistakes:
            raise Failure("the configuration in force stays as it is")
        click.echo("the configuration was read again and is in force")

    def log_level(remote: Remote, level: str) -> None:
        """Change from which level on the running {name} logs messages, until its next start."""
        click.echo(remote.ask("log-level", level=level))

    levels = click.Choice(["debug", "info", "warning", "error"])
    return [
        controlled.command(status, "status", JSON),
        controlled.command(reload, "reload"),
        controlled.command(log_level, "log-level", click.argument("level", type=levels)),
    ]


def listing(
    controlled: Controlled, command: str, tables: Callable[[Tables], Callable[..., list[Any]]]
) -> Callable[..., None]:
    """A function for a command that lists what the program answers in parts."""

    def run(remote: Remote, as_json: bool, **arguments: Any) -> None:
        found = remote.all(command, **arguments)
        _show(as_json, found, lambda: tables(controlled.tables())(found))
        limit = arguments.get("limit")
        if limit is not None and len(found) >= limit and not as_json:
            click.echo(f"the first {limit}; more with --limit", err=True)

    return run


def flows_command(controlled: Controlled, *flags: Flag) -> click.Command:
    """`flows`, with the filters that the program has."""
    listed = listing(controlled, "flows", lambda tables: tables.flows)

    def flows(remote: Remote, killed: str | None, **filters: Any) -> None:
        """List connections, or end one: it is reset for its client, and its server is told."""
        if killed is not None:
            for each in remote.ask("kill", flow=killed)["killed"]:
                click.echo(f"{each} is ended")
        else:
            listed(remote, **filters)

    names = "ID|ADDRESS:PORT"
    kill = click.option("--kill", "killed", metavar=names, help="End the connection of that name.")
    return controlled.command(flows, "flows", *flags, kill)


def backends_command(controlled: Controlled, *flags: Flag) -> click.Command:
    """`backends`, with the filters that the program has."""
    listed = listing(controlled, "backends", lambda tables: tables.backends)

    def backends(remote: Remote, as_json: bool, **filters: Any) -> None:
        """List the backends of the running {name}: how each is, and what it has had."""
        listed(remote, as_json, **filters)

    return controlled.command(backends, "backends", *flags, JSON)


def changing(controlled: Controlled, name: str, text: str, *flags: Flag) -> click.Command:
    """A command that names a backend first and has something done with it; ``text`` is its help."""

    def change(remote: Remote, **arguments: Any) -> None:
        click.echo(remote.ask(name, **arguments))

    change.__doc__ = text
    named = click.argument("backend", type=BackendName(controlled))
    return controlled.command(change, name, named, *flags)


def top_command(controlled: Controlled) -> click.Command:
    def top(remote: Remote, interval: float, frames: int) -> None:
        """Show what the running {name} does, anew each second, until Ctrl-C."""
        from common.program.control import top as showing  # noqa: PLC0415 - loads rich

        with remote.client() as client, suppress(KeyboardInterrupt):
            showing.run(client, interval, frames)

    return controlled.command(
        top,
        "top",
        click.option(
            "--interval",
            type=click.FloatRange(0.1, 3600),
            default=1.0,
            show_default=True,
            help="Seconds between two looks.",
        ),
        click.option("--frames", type=click.IntRange(0), default=0, help="End after so many."),
    )


def shell_command(controlled: Controlled, commands: list[click.Command]) -> click.Command:
    """``commands`` are those that can be given at the prompt."""

    def shell(remote: Remote) -> None:
        """Give commands to the running {name} at a prompt: the same ones, with completion of what
        it knows, and a history. `help` lists them, `exit` leaves, `quit` stops {name}."""
        from common.program.control import shell as prompting  # noqa: PLC0415 - loads a library

        prompting.prompt(remote, commands)

    return controlled.command(shell, "shell")


def _show(as_json: bool, found: Any, tables: Callable[[], list[Any]]) -> None:
    if as_json:
        json.dump(found, sys.stdout, indent=1)
        click.echo()
        return
    from common.program.control import rendering  # noqa: PLC0415 - takes a tenth of a second

    rendering.show(*tables())
