"""What the balancer's answers look like in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from common.program.control import status as basics
from common.program.control.rendering import duration, table


def status(found: dict[str, Any]) -> list[RenderableType]:
    rows = [
        (each["name"], f"{each['vip']}:{each['port']}", each["dscp"], ", ".join(each["pools"]))
        for each in found["services"]
    ]
    return basics.tables(found, [table(("service", "address", "dscp", "pools"), rows)])


def flows(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = ("id", "client", "service", "backend", "state", "path", "age", "idle")
    rows = [
        [duration(each[name]) if name in ("age", "idle") else each[name] for name in names]
        for each in found
    ]
    return [table(names, rows)]


def backends(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = ("pool", "name", "bridge", "weight", "state", "reason", "pending", "given")
    return [table(names, [[each[name] for name in names] for each in found])]
