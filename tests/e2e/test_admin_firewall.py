"""Hosts whose own firewall is strict and stateful."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

import pytest

from tests.e2e.firewalls import firewall, invalid, web_rules
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, SERVER1, SERVER2, VIP, Lab

pytestmark = pytest.mark.root


def test_stateful_firewalls_on_all_hosts(lab: Lab) -> None:
    rules = web_rules(VIP, {"backend1": (BRIDGE1, SERVER1), "backend2": (BRIDGE2, SERVER2)})
    with ExitStack() as stack:
        for host in rules:
            stack.enter_context(firewall(lab, host, rules[host]))
        for number in range(1, 21):
            assert lab.curl(f"/small/{number}").status == 200
        answer = lab.curl("/20m")
        stored = lab.curl("/upload/behind-firewalls", "-T", str(LAB / "www" / "1m"))
        counts = {host: invalid(lab, host) for host in rules}
    assert hashlib.sha256(answer.body).digest() == _digest("20m")
    assert stored.status in (201, 204)
    assert _digest("upload/behind-firewalls") == _digest("1m")
    assert counts == dict.fromkeys(rules, 0)


def _digest(name: str) -> bytes:
    with (LAB / "www" / name).open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
