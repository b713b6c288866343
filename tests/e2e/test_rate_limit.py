"""Rate limits in the running programs: who is over one is told, and everybody else is served."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.e2e import web
from tests.e2e.capture import FIN, RST, capture
from tests.e2e.lab import VIP, Lab, until
from tests.e2e.pooled import in_force, pending, pool, service

pytestmark = pytest.mark.root

OTHER = "192.168.33.99"  # another client's address


def limited(**settings: object) -> str:
    """A pool that lets three through at once, and then one in ten seconds."""
    values = {"rate": 0.1, "burst": 3, **settings}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    return service() + pool() + f"\n[pools.limit]\n{lines}\n"


def test_who_is_over_it_is_told_when_to_come_again_and_nobody_else_is(lab: Lab) -> None:
    hasty = "\n[timeouts]\nclosing = 1.0\n"
    with in_force(lab, limited() + hasty), lab.address("client", OTHER):
        assert [lab.curl(f"/{n}").status for n in range(3)] == [404] * 3
        growth = lab.growth("balancer")
        with capture(lab, "client") as packets:
            answer = lab.curl("/1k", "-i")
            until(lambda: lab.closed(answer.port), 2, "the client's side is over")
        assert (answer.status, answer.backend) == (429, "")
        head = answer.body.decode().split("\r\n")
        assert head[0] == "HTTP/1.1 429 Too Many Requests"
        assert "Content-Length: 0" in head
        assert "Connection: close" in head
        (after,) = (int(line.split()[1]) for line in head if line.startswith("Retry-After"))
        assert 5 <= after <= 10
        mine = [packet for packet in packets.packets if answer.port in packet.ports]
        assert not [packet for packet in mine if packet.flags & RST]
        assert {packet.outgoing for packet in mine if packet.flags & FIN} == {True, False}
        assert growth("replied_429") == 1
        assert growth("over_rate_limit") == 1
        assert lab.curl("/1k", "--interface", OTHER).status == 200, "another address"
        until(lambda: not lab.counters("balancer")["waiting"], 5, "it is forgotten")
        assert sum(pending(lab).values()) == 0


def test_a_client_that_is_sending_much_hears_it_too(lab: Lab) -> None:
    """What it goes on sending is acknowledged, so that no reset overtakes the answer."""
    with in_force(lab, limited(burst=1)):
        assert lab.curl("/1k").status == 200
        for _ in range(3):
            body = ["--data-binary", f"@{lab.directory}/www/1m", "-H", "Expect:"]
            assert lab.curl("/1k", *body).status == 429
        with lab.connect() as tcp:  # and whose request comes in parts
            for part in (b"POST /1k HTTP/1.1\r\nHost: h\r\n", b"Content-Length: 9\r\n\r\n123"):
                tcp.sendall(part)
                time.sleep(web.DRIBBLE_PAUSE)
            answer = web.rest(tcp)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert answer.endswith(b"\r\n\r\n")
            tcp.sendall(b"456789")


def test_a_token_comes_with_time(lab: Lab) -> None:
    with in_force(lab, limited(rate=4.0, burst=1)):
        assert lab.curl("/1k").status == 200
        began = time.monotonic()
        statuses = []
        while time.monotonic() < began + 1.0:
            statuses.append(lab.curl("/1k").status)
        assert set(statuses) == {200, 429}
        assert 3 <= statuses.count(200) <= 5


def test_over_it_means_a_reset_where_that_is_configured(lab: Lab) -> None:
    with in_force(lab, limited(burst=1, over="reset")):
        assert lab.curl("/1k").status == 200
        command = lab.command("client", "curl", "-sS", "-m", "5", f"http://{VIP}/1k")
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 56, done.stderr
        assert "reset by peer" in done.stderr


def test_a_limit_per_key_is_the_keys_whoever_asks(lab: Lab) -> None:
    with in_force(lab, limited(burst=1, per="key")), lab.address("client", OTHER):
        assert lab.curl("/1k").status == 200
        assert lab.curl("/1k", "--interface", OTHER).status == 429
        assert lab.curl("/100k").status == 200


def test_a_reload_that_leaves_the_limit_leaves_what_is_known(lab: Lab) -> None:
    with in_force(lab, limited(burst=1)):
        assert lab.curl("/1k").status == 200
        more = limited(burst=1).replace("[[pools]]", '[[pools]]\npolicy = "ring"')
        with in_force(lab, more):
            assert lab.curl("/1k").status == 429
