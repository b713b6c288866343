"""What the commands of both programs have in common: reading files, reporting, exit codes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from common.adapters import keyfile
from common.adapters.checks import Problem
from common.adapters.firewall import FirewallError
from common.adapters.routes import RouteError
from common.core.settings import SettingsError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
FAILED, USAGE = 1, 2  # exit codes: the host, or what the user asked for

HOST_ERRORS = (FirewallError, keyfile.KeyFileError, RouteError, PermissionError)

C = TypeVar("C")
Command = TypeVar("Command", bound=Callable[..., Any])


class UsageProblems(click.ClickException):
    """Mistakes in the configuration, the flags or a file; a line each."""

    exit_code = USAGE

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n       ".join(problems))


def with_flags(flags: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Give a command all these options, in their order."""

    def decorate(command: Command) -> Command:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return decorate


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Flags before and after a subcommand's name; of a flag in both places the later holds."""
    return before | {name: value for name, value in after.items() if value not in (None, ())}


def configuration(
    file: str | None,
    standard: str,
    parse: Callable[[str, str], C],
    default: Callable[[], C],
) -> C:
    """The configuration in `file`; without one in the standard file, or else the default.

    Raises UsageProblems.
    """
    try:
        with open(file or standard, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        if file is None:
            return default()
        raise UsageProblems([f"{file}: there is no such file"]) from None
    except OSError as error:
        raise UsageProblems([f"{file or standard}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise UsageProblems([f"{file or standard}: is not UTF-8 text"]) from None
    with usage_problems():
        return parse(text, file or standard)


@contextmanager
def usage_problems() -> Iterator[None]:
    """Settings that cannot be used end the program with exit code 2 and a line for each."""
    try:
        yield
    except SettingsError as error:
        raise UsageProblems(error.problems) from None


def keygen(file: str) -> None:
    """Make a key file; one that exists is kept, and the exit code is 2."""
    try:
        keyfile.create(file)
    except keyfile.KeyFileError as error:
        raise UsageProblems([f"{error}", f"mend: {error.cure}"]) from None
    click.echo(f"{file}: new key; every balancer and bridge needs a copy of this file")


def check_key(path: str) -> None:
    """Say what is wrong with a key file as far as this user can see; exit code 2 if it is bad."""
    try:
        keyfile.load(path)
    except keyfile.Unreadable as error:
        click.echo(f"not checked: {error}")
    except keyfile.KeyFileError as error:
        raise UsageProblems([f"{error}", f"mend: {error.cure}"]) from None


def show(problems: Sequence[Problem]) -> None:
    """Each problem, and below it what mends it; those that prevent the start are errors."""
    for problem in problems:
        click.echo(f"{'error' if problem.fatal else 'warning'}: {problem.what}", err=True)
        click.echo(f"  mend: {problem.mend}", err=True)


def refuse(problems: Sequence[Problem]) -> None:
    """Show the problems; exit code 1 where one of them is fatal."""
    show(problems)
    if any(problem.fatal for problem in problems):
        raise SystemExit(FAILED)


@contextmanager
def failures(program: str, *errors: type[Exception]) -> Iterator[None]:
    """These errors end the program with exit code 1 and a message instead of a traceback."""
    try:
        yield
    except errors as error:
        click.echo(f"{program}: {error}", err=True)
        raise SystemExit(FAILED) from None


def is_root() -> bool:
    return os.geteuid() == 0
