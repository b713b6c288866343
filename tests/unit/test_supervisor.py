"""What a service manager is told, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.adapters.supervisor import Supervisor


@pytest.fixture(params=["a path", "an abstract name"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket of one, by either kind of name that systemd gives it."""
    name = str(tmp_path / "notify") if request.param == "a path" else f"@l3dsr-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.setblocking(False)
        yield listening


def test_each_word_is_a_datagram(manager: socket.socket) -> None:
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.alive()
    supervisor.stopping(2.5)
    heard = [manager.recv(1000).decode() for _ in range(3)]
    assert heard == ["READY=1", "WATCHDOG=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000"]
    supervisor.reloading()
    word, _, stamp = manager.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert int(stamp) > 0
    supervisor.close()


def test_a_manager_that_does_not_listen_holds_nothing_up(manager: socket.socket) -> None:
    supervisor = Supervisor()
    for _ in range(10_000):  # more than any socket's queue holds
        supervisor.alive()
    supervisor.close()
    assert manager.recv(1000) == b"WATCHDOG=1"


def test_a_manager_that_is_gone_is_no_error(manager: socket.socket) -> None:
    supervisor = Supervisor()
    manager.close()
    supervisor.alive()
    supervisor.close()


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.close()
