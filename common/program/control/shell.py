"""The `shell` command: a prompt over the same commands, with completion and a history."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import ShellComplete
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from common.program.control.remote import Failure, Remote

WELCOME = (
    "{name}, process {pid}: 'help' lists the commands, 'exit' leaves, 'quit' stops the program"
)


def prompt(remote: Remote, commands: Sequence[click.Command]) -> None:
    """Read commands and do them until `exit`, `quit` or the end of input."""
    status = remote.ask("status")
    click.echo(WELCOME.format(name=remote.name, pid=status["pid"]))
    words = _words(remote, commands)
    session: PromptSession[str] = PromptSession(
        f"{remote.name}> ",
        completer=ClickCompleter(words, {"socket": remote.socket}),
        complete_in_thread=True,  # it asks the program
        history=history(remote.name),
    )
    while True:
        try:
            line = session.prompt()
        except KeyboardInterrupt:
            continue  # as in other shells: the line is dropped
        except EOFError:
            return
        if not _do(words, line, remote):
            return


class ClickCompleter(Completer):
    """What click completes in a shell: commands, options, choices, and names that it asks for."""

    def __init__(self, words: click.Group, obj: dict[str, Any]) -> None:
        self._complete = ShellComplete(words, {"obj": obj}, "", "")

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        try:
            words = shlex.split(text)
        except ValueError:  # within quotes
            return
        last = "" if not text or text[-1].isspace() else words.pop()
        for item in self._complete.get_completions(words, last):
            if item.type == "plain":
                value = shlex.quote(item.value)
                yield Completion(value, start_position=-len(last), display_meta=item.help or "")


def history(name: str) -> History:
    """What was typed earlier, in the user's state directory (XDG Base Directory Specification); of
    this time only where there is no writing to it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    directory = Path(state if state.startswith("/") else Path.home() / ".local" / "state") / "l3dsr"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = directory / f"{name}_history"
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


class _Leave(Exception):
    """Ends the prompt."""


def _words(remote: Remote, commands: Sequence[click.Command]) -> click.Group:
    """All that can be typed."""
    group = click.Group(name="", context_settings={"help_option_names": ["-h", "--help"]})
    for command in commands:
        group.add_command(command)

    @group.command("help")
    @click.argument("command", required=False)
    @click.pass_context
    def help_(context: click.Context, command: str | None) -> None:
        """List the commands, or explain one."""
        chosen = group.commands.get(command or "")
        if command and chosen is None:
            raise Failure(f"there is no command {command}")
        if chosen is not None:
            with click.Context(chosen, info_name=command) as own:
                click.echo(chosen.get_help(own))
            return
        formatter = click.HelpFormatter(max_width=100)
        formatter.write_dl(
            [(name, each.get_short_help_str(80)) for name, each in sorted(group.commands.items())]
        )
        click.echo(formatter.getvalue().rstrip())

    @group.command("exit")
    def exit_() -> None:
        """Leave this prompt; the program goes on."""
        raise _Leave

    @group.command("quit")
    def quit_() -> None:
        """Stop the program, after a question, and leave."""
        if click.confirm(f"Stop {remote.name}, and end its connections as SIGINT does?"):
            click.echo(remote.ask("stop"))
            raise _Leave

    return group


def _do(words: click.Group, line: str, remote: Remote) -> bool:
    """Do what a line says; False where it says to leave."""
    try:
        typed = shlex.split(line)
        if typed:
            obj = {"socket": remote.socket}
            words.main(typed, prog_name="", standalone_mode=False, obj=obj)
    except _Leave:
        return False
    except ValueError as error:
        click.echo(f"{line}: {error}", err=True)
    except click.UsageError as error:
        if error.ctx is None or error.ctx.parent is None:
            error.ctx = None  # the usage of the prompt itself tells nothing
        error.show()
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo()
    except SystemExit:
        pass
    return True
