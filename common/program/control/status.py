"""What `status` shows of both programs."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from common.program.control.rendering import columns, duration, pairs


def tables(status: dict[str, Any], own: list[RenderableType]) -> list[RenderableType]:
    """``own`` are the program's tables, between what it is and what it has counted."""
    head = {
        "program": f"{status['program']} {status['version']}, process {status['pid']}",
        "running for": duration(status["uptime"]),
        "datapath": status["datapath"],
        "log level": status["log_level"],
    }
    return [
        pairs(head),
        *own,
        "",
        columns(status["gauges"]),
        "",
        columns(status["counts"]),
    ]
