"""A handoff that is overtaken on its way to the bridge by what the client sent behind it."""

from __future__ import annotations

import time

import pytest

from tests.e2e import web
from tests.e2e.lab import LAB, Lab
from tests.e2e.network import HANDOFF, delay

pytestmark = pytest.mark.root

LATE = 0.03  # seconds that a handoff takes longer; a lost segment would cost 0.2 at the least


def test_what_overtakes_its_handoff_is_not_lost(lab: Lab) -> None:
    first = web.request("/1k", "Connection: keep-alive")
    second = web.request("/1k?second", close=True)
    early = {host: lab.growth(host) for host in ("backend1", "backend2")}
    with delay(lab, "balancer", f"-d 192.168.33.0/24 {HANDOFF}", LATE), lab.connect() as tcp:
        tcp.setsockopt(6, 1, 1)  # TCP_NODELAY: two segments
        started = time.monotonic()
        tcp.sendall(first)
        time.sleep(0.002)
        tcp.sendall(second)
        answer = web.rest(tcp)
        seconds = time.monotonic() - started
    assert answer.count((LAB / "www" / "1k").read_bytes()) == 2
    assert LATE <= seconds < 0.15
    # the client may probe for its last segment meanwhile (RFC 8985)
    assert sum(growth("early_segments") for growth in early.values()) >= 1
