"""A host's interface goes down for some seconds and comes up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.lab import PROGRAMS, Lab
from tests.e2e.load import download, load
from tests.soak import Amount

pytestmark = pytest.mark.root


@contextmanager
def link_down(lab: Lab, host: str) -> Iterator[None]:
    """With the link go routes and neighbours; the kernel brings back what an address implies, and
    the rest (here none) is for whoever manages the host's network."""
    routes = lab.run(host, "ip", "route")
    lab.run(host, "ip", "link", "set", "eth0", "down")
    try:
        assert lab.run(host, "ip", "route") == ""
        yield
    finally:
        lab.run(host, "ip", "link", "set", "eth0", "up")
    assert lab.run(host, "ip", "route") == routes


@pytest.mark.parametrize("host", ["balancer", "backend1"])
def test_all_goes_on_when_the_link_is_back(
    lab: Lab, host: str, amount: Amount, report: Callable[[str], None]
) -> None:
    """Downloads, a connection that waits with nothing to say, and requests; none of them fails."""
    pids = {program: lab.pid(program) for program in PROGRAMS}
    path = lab.path_for(amount("20m", "100m"), "backend1")
    times, seconds = amount(1, 5), amount(2, 4)
    longest, tallies = 0.0, []
    with download(lab, path, amount("2500k", "1500k")) as whole, lab.connect() as idle:
        for number in range(times):
            with load(lab, 4, 20) as requests:
                requests.goes_on(10)
                whole.goes_on(100_000)
                with link_down(lab, host):
                    time.sleep(seconds)
                back = time.monotonic()
                whole.goes_on(100_000, 15)
                requests.goes_on(20, 15)
                longest = max(longest, time.monotonic() - back)
            tallies.append(requests.tally)
            amount.progress(number + 1, times)
        whole.arrives(150)
        idle.sendall(b"GET /1k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
    assert [failure for tally in tallies for failure in tally.failures] == []
    assert {program: lab.pid(program) for program in PROGRAMS} == pids
    assert all(lab.alive(program) for program in PROGRAMS)
    report(
        f"{host}'s link down {times} times for {seconds} s: all goes on {longest:.1f} s after it "
        f"is back; {sum(len(tally.seconds) for tally in tallies)} requests, none failed"
    )
