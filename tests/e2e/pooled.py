"""Pools and routes of a test's own, put in force by a reload of the lab's running balancer."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.e2e import web
from tests.e2e.controlled import client
from tests.e2e.lab import BRIDGE1, BRIDGE2, CONFIGURATIONS, VIP, Lab, until

FIRST = f'{{ name = "backend1", bridge = "{BRIDGE1}" }}'
SECOND = f'{{ name = "backend2", bridge = "{BRIDGE2}" }}'
BOTH = f"{FIRST}, {SECOND}"
SETTLED = 5.0  # seconds: for what takes some milliseconds, on a machine that is busy


def service(pool: str = "p", more: str = "") -> str:
    """The lab's usual VIP and port; without a ``pool``, nobody serves what no route takes."""
    to_pool = f'pool = "{pool}"' if pool else ""
    return f"""
[[services]]
name = "web"
vip = "{VIP}"
port = 80
dscp = 1
{to_pool}
{more}
"""


def pool(name: str = "p", backends: str = BOTH, more: str = "") -> str:
    return f"""
[[pools]]
name = "{name}"
backends = [{backends}]
{more}
"""


def reload(lab: Lab, program: str = "balancer") -> list[str]:
    """Have a program read its configuration again; gives the mistakes that prevented it."""
    with client(lab, program) as asking:
        mistakes: list[str] = asking.ask("reload")["mistakes"]
        return mistakes


def write(lab: Lab, text: str, program: str = "balancer") -> None:
    """Give a program another configuration, of which it does not know yet: ``text`` from the first
    service on, the lab's own before that."""
    file = lab.directory / "etc" / CONFIGURATIONS[program]
    file.write_text(file.read_text().partition("\n[[services]]")[0] + text)


@contextmanager
def in_force(lab: Lab, text: str) -> Iterator[None]:
    """The lab's balancer with these services, routes and pools, for a while."""
    file = lab.directory / "etc" / CONFIGURATIONS["balancer"]
    before = file.read_text()
    try:
        write(lab, text)
        assert reload(lab) == []
        yield
    finally:
        file.write_text(before)
        assert reload(lab) == []


@contextmanager
def extended(lab: Lab, program: str, text: str) -> Iterator[None]:
    """A program with more in its configuration, for a while, by a reload."""
    file = lab.directory / "etc" / CONFIGURATIONS[program]
    before = file.read_text()
    try:
        file.write_text(before + text)
        assert reload(lab, program) == []
        yield
    finally:
        file.write_text(before)
        assert reload(lab, program) == []


def hang_up(lab: Lab) -> None:
    """SIGHUP to the balancer."""
    os.kill(lab.pid("balancer"), signal.SIGHUP)


def rows(lab: Lab, pool: str | None = None) -> list[dict[str, Any]]:
    """What the balancer says of the backends."""
    with client(lab) as asking:
        return asking.all("backends", pool=pool)


def pending(lab: Lab, pool: str = "p") -> dict[str, int]:
    """Flows in progress at each backend of a pool."""
    return {row["name"]: row["pending"] for row in rows(lab, pool)}


def given(lab: Lab) -> dict[tuple[str, str], int]:
    """Flows that each backend was given, by pool and name."""
    return {(row["pool"], row["name"]): row["given"] for row in rows(lab)}


def quiet(lab: Lab, pool: str = "p", seconds: float = SETTLED) -> None:
    """Wait until a pool has no flows in progress."""
    until(lambda: not any(pending(lab, pool).values()), seconds, f"{pool} has nothing in progress")


@contextmanager
def held(lab: Lab, count: int, path: str = "/1k") -> Iterator[list[socket.socket]]:
    """So many connections one after the other, each with an answer, and open until the end."""
    with ExitStack() as ending:
        connections = []
        for _ in range(count):
            tcp = ending.enter_context(lab.connect())
            tcp.sendall(web.request(path))
            assert web.response(tcp).status == 200
            connections.append(tcp)
        yield connections


def reset(tcp: socket.socket) -> None:
    """Close a connection by RST."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()
