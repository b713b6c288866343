"""What the balancer's answers look like in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from common.program.control import status as basics
from common.program.control.rendering import duration, pairs, table


def status(found: dict[str, Any]) -> list[RenderableType]:
    rows = [
        (
            each["name"],
            f"{each['vip']}:{each['port']}",
            each["protocol"],
            each["inspect"],
            each["dscp"],
            ", ".join(each["pools"]),
        )
        for each in found["services"]
    ]
    names = ("service", "address", "protocol", "inspect", "dscp", "pools")
    return basics.tables(found, [table(names, rows)])


def flows(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = ("id", "client", "protocol", "service", "backend", "state", "path", "age", "idle")
    rows = [
        [duration(each[name]) if name in ("age", "idle") else each[name] for name in names]
        for each in found
    ]
    return [table(names, rows)]


def explained(found: dict[str, Any]) -> list[RenderableType]:
    """What `explain` says of one request."""
    words = {"service": found["service"]}
    if "bad" in found:
        words["bad"] = found["bad"]
    if "pool" not in found:
        return [pairs(words | {"": "the client is reset"})]
    words |= {
        "route": found["route"] or "none: the service's own pool",
        "pool": f"{found['pool']} ({found['policy']})",
        "key": found["key"],
        "missing": ", ".join(found["missing"]),
        "hash": found["hash"],
        "backend": (found["backend"] or "nobody takes new connections")
        + " (it has it already)" * found.get("mapped", False),
        "then": ", ".join(found["order"][1:]),
    }
    passed = [f"{name} ({why})" for name, why in found["passed_over"].items()]
    if passed:
        words["passed over"] = ", ".join(passed)
    return [pairs(words)]


def backends(found: list[dict[str, Any]]) -> list[RenderableType]:
    names = ("pool", "name", "bridge", "weight", "state", "reason", "pending", "given")
    return [table(names, [[each[name] for name in names] for each in found])]
