"""Names that a running program knows, for completion in shells and at the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from common.adapters.control.client import ControlError, connect

if TYPE_CHECKING:
    from common.program.control.cli import Controlled

SECONDS = 0.5  # that a completion waits for the program


class BackendName(click.ParamType[str]):
    """A backend as the program's `backends` names it; whether there is one, the program says."""

    name = "backend"

    def __init__(self, controlled: Controlled) -> None:
        self._controlled = controlled

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that there are, of a program that answers at once."""
        try:
            remote = self._controlled.remote(ctx.obj or _flags(ctx), None, None)
            with connect(remote.socket, remote.name, SECONDS) as client:
                found = client.all("backends")
        except (ControlError, click.ClickException):
            return []
        names = [self._controlled.backend_name(each) for each in found]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _flags(context: click.Context) -> dict[str, Any]:
    """What stands before, or beside, while the words are not complete yet."""
    found = context.find_root().params
    return {
        "file": context.params.get("reached_file") or found.get("file"),
        "socket": context.params.get("reached_socket"),
    }
