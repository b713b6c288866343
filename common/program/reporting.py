"""How both programs tell their user what is wrong: messages and exit codes."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from common.adapters.bpf.libbpf import BpfError
from common.adapters.checks import Problem
from common.adapters.control.place import ControlSocketError
from common.adapters.firewall import FirewallError
from common.adapters.keyfile import KeyFileError
from common.adapters.routes import RouteError
from common.core.settings import SettingsError
from common.program.datapath import DatapathError

FAILED, USAGE = 1, 2  # exit codes: the host, or what the user asked for

HOST_ERRORS = (
    BpfError,
    ControlSocketError,
    DatapathError,
    FirewallError,
    KeyFileError,
    RouteError,
    OSError,
)


class UsageProblems(click.ClickException):
    """Mistakes in the configuration, the flags or a file; a line each."""

    exit_code = USAGE

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n       ".join(problems))
        self.problems = list(problems)


@contextmanager
def usage_problems() -> Iterator[None]:
    """Settings and key files that cannot be used end the program with exit code 2 and a line for
    each mistake."""
    try:
        yield
    except SettingsError as error:
        raise UsageProblems(error.problems) from None
    except KeyFileError as error:
        raise UsageProblems([f"{error}", f"mend: {error.cure}"]) from None


@contextmanager
def failures(program: str, *errors: type[Exception]) -> Iterator[None]:
    """These errors end the program with exit code 1 and a message instead of a traceback."""
    try:
        yield
    except errors as error:
        click.echo(f"{program}: {error}", err=True)
        raise SystemExit(FAILED) from None


def show(problems: Sequence[Problem]) -> None:
    """Each problem, and below it what mends it; those that prevent the start are errors."""
    sys.stdout.flush()  # the order, where both go into one pipe
    for problem in problems:
        click.echo(f"{'error' if problem.fatal else 'warning'}: {problem.what}", err=True)
        click.echo(f"  mend: {problem.mend}", err=True)


def refuse(problems: Sequence[Problem]) -> None:
    """Show the problems; exit code 1 where one of them is fatal."""
    show(problems)
    if any(problem.fatal for problem in problems):
        raise SystemExit(FAILED)
