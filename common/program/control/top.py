"""`top`: what the running program does now, anew each second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live

from common.adapters.control.client import ControlClient
from common.program.control.rendering import columns, duration, pairs, table

BUSIEST = 24  # counters that are shown


def run(client: ControlClient, interval: float, frames: int) -> None:
    """Show so many frames, 0: until Ctrl-C; in place on a terminal, one below the other else."""
    console = Console(highlight=False)
    looks = _looks(client, interval)
    before = next(looks)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        for number, now in enumerate(looks, 1):
            frame = picture(before, now)
            if console.is_terminal:
                live.update(frame, refresh=True)
            else:
                console.print(frame)
            if number == frames:
                return
            before = now


def _looks(client: ControlClient, interval: float) -> Iterator[dict[str, Any]]:
    """What there is to see, and when it was seen."""
    due = time.monotonic()
    while True:
        status = client.ask("status")
        yield {"at": time.monotonic(), "status": status, "backends": client.all("backends")}
        due = max(due + interval, time.monotonic())
        time.sleep(due - time.monotonic())


def picture(before: dict[str, Any], now: dict[str, Any]) -> RenderableType:
    """One frame: rates since the look before."""
    seconds = max(now["at"] - before["at"], 1e-3)
    status = now["status"]
    head = {
        status["program"]: f"up {duration(status['uptime'])}, datapath {status['datapath']}",
        "now": ", ".join(f"{name} {count:,}" for name, count in status["gauges"].items()),
    }
    growth = _growth(before["status"]["counts"], status["counts"], seconds)
    busiest = dict(sorted(growth.items(), key=lambda item: -item[1])[:BUSIEST])
    parts: list[RenderableType] = [pairs(head), ""]
    if now["backends"]:
        parts.append(_backends(before["backends"], now["backends"], seconds))
    return Group(*parts, "per second:", columns(busiest) if busiest else "nothing")


def _growth(before: dict[str, int], now: dict[str, int], seconds: float) -> dict[str, int]:
    rates = {name: round((count - before.get(name, 0)) / seconds) for name, count in now.items()}
    return {name: rate for name, rate in rates.items() if rate}


def _backends(
    before: list[dict[str, Any]], now: list[dict[str, Any]], seconds: float
) -> RenderableType:
    """All numbers of a backend, and how fast those grow that only grow."""
    known = {_name(each): each for each in before}
    names = [name for name in now[0] if name != "reason"]
    rows = []
    for each in now:
        earlier = known.get(_name(each), each).get("given")
        rate = 0.0 if earlier is None else (each["given"] - earlier) / seconds
        rows.append([*(each[name] for name in names), round(rate, 1)])
    return table((*names, "given/s"), rows)


def _name(backend: dict[str, Any]) -> tuple[Any, Any]:
    return backend.get("pool"), backend["name"]
