"""Reaching the running program from a command; where it is not to be had, one line says so."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from common.adapters.control.client import ControlClient, ControlError, connect
from common.program.reporting import FAILED, UsageProblems


@dataclass(frozen=True, slots=True)
class Remote:
    """A running program: its name, and where its socket is."""

    name: str
    socket: str

    @contextmanager
    def client(self, timeout: float = 10.0) -> Iterator[ControlClient]:
        """Connected; a ControlError ends the command with exit code 1 and one line."""
        try:
            with connect(self.socket, self.name, timeout) as client:
                yield client
        except ControlError as error:
            raise Failure(str(error)) from None

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result of a command."""
        with self.client() as client:
            return client.ask(command, **arguments)

    def all(self, command: str, **arguments: Any) -> list[Any]:
        """The items of a command that answers in parts."""
        with self.client() as client:
            return client.all(command, **arguments)


class Failure(click.ClickException):
    """One line and exit code 1."""

    exit_code = FAILED

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line

    def show(self, file: Any = None) -> None:
        click.echo(self.line, err=True, file=file)


def socket_of(standard_file: str, default: str, file: str | None) -> str:
    """Where the program that runs with this configuration listens.

    Nothing else of the configuration is looked at: a mistake elsewhere in it must not keep anybody
    from a program that runs.
    """
    try:
        table = tomllib.loads(Path(file or standard_file).read_text(encoding="utf-8"))
        path = table["control"]["socket"]
    except FileNotFoundError:
        if file is not None:
            raise UsageProblems([f"{file}: there is no such file"]) from None
        return default
    except (OSError, ValueError, KeyError, TypeError):
        return default
    return path if isinstance(path, str) else default
