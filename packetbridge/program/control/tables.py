"""What the bridge's answers look like in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from common.program.control import status as basics
from common.program.control.rendering import duration, table


def status(found: dict[str, Any]) -> list[RenderableType]:
    rows = [
        (each["name"], each["server"], each["source"], each["vip"]) for each in found["services"]
    ]
    return basics.tables(found, [table(("backend", "server", "source", "VIP"), rows)])


def flows(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = (
        "id",
        "client",
        "protocol",
        "vip",
        "backend",
        "server",
        "state",
        "path",
        "age",
        "idle",
    )
    rows = [
        [duration(each[name]) if name in ("age", "idle") else each[name] for name in names]
        for each in found
    ]
    return [table(names, rows)]


def backends(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = (
        "name",
        "server",
        "state",
        "reason",
        "pending",
        "given",
        "opened",
        "refused",
        "silent",
        "resets",
    )
    return [table(names, [[each[name] for name in names] for each in found])]
