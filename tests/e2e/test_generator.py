"""The demo's clients: who they are, and that they notice what is wrong."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import click
import pytest

from tests.e2e.datagrams import many_addresses
from tests.e2e.lab import ROOT, SERVER1, Lab

FILE = ROOT / "provisioning" / "demo" / "generator.py"
PORT = 5309


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generator", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generator"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_clients_are_addresses_ranges_and_networks() -> None:
    named = generator().addresses(("10.33.0.9", "10.33.0.1-10.33.0.3", "10.44.0.0/30"))
    assert list(named) == [
        *("10.33.0.9", "10.33.0.1", "10.33.0.2", "10.33.0.3"),
        *("10.44.0.1", "10.44.0.2"),
    ]
    with pytest.raises(click.BadParameter, match="nonsense"):
        list(generator().addresses(("nonsense",)))


@contextmanager
def answering(lab: Lab, from_port: int) -> Iterator[None]:
    """A server that answers three datagrams from that port, with a name."""
    asked = lab.socket("backend1", socket.AF_INET, socket.SOCK_DGRAM)
    answers = lab.socket("backend1", socket.AF_INET, socket.SOCK_DGRAM)
    asked.bind((SERVER1, PORT))
    asked.settimeout(10)
    answers.bind((SERVER1, from_port if from_port != PORT else 0))

    def serve() -> None:
        for _ in range(3):
            text, peer = asked.recvfrom(1000)
            (asked if from_port == PORT else answers).sendto(b"me: " + text, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(10)
    finally:
        asked.close()
        answers.close()


def sent(lab: Lab) -> subprocess.CompletedProcess[str]:
    options = ["--source", "10.33.0.0/29", "--to", f"{SERVER1}:{PORT}", "--datagrams", "1"]
    line = [sys.executable, str(FILE), *options, "--patience", "0.5"]
    return lab.result("client", *line)


@pytest.mark.root
def test_it_says_who_was_not_answered_and_what_came_from_elsewhere(lab: Lab) -> None:
    with many_addresses(lab):
        with answering(lab, PORT):
            done = sent(lab)
        assert done.stdout.split("\n")[:4] == [
            *(f"10.33.0.{number} me" for number in range(1, 4)),
            "10.33.0.4 -",
        ]
        assert done.stderr == "3 datagrams were not answered\n"
        assert done.returncode == 1
        with answering(lab, PORT + 1):
            done = sent(lab)
        assert f"came from {SERVER1}:{PORT + 1}, not from {SERVER1}:{PORT}" in done.stderr
        assert done.returncode == 1
