"""The time of day steps on one host or on all: what stands goes on, what begins is told why not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.clock import Clocks, settable_clocks
from tests.e2e.lab import PROGRAMS, Lab, until
from tests.e2e.load import Download, download
from tests.e2e.web import request

pytestmark = pytest.mark.root

LONG = pytest.mark.soak
BRIDGES = ("backend1", "backend2")


@pytest.fixture(scope="module")
def with_clocks(running_lab: Lab) -> Iterator[Clocks]:
    with settable_clocks(running_lab, *PROGRAMS) as clocks:
        yield clocks


@pytest.fixture
def clocks(with_clocks: Clocks, lab: Lab) -> Iterator[Clocks]:
    """All of them right again afterwards."""
    yield with_clocks
    with_clocks.set(0, *PROGRAMS)


@pytest.fixture
def standing(lab: Lab) -> Iterator[Download]:
    """A download that lasts, which nothing here may hold up."""
    with download(lab, "100m", "3M") as running:
        running.goes_on(1)
        yield running
        running.goes_on(1_000_000, 5)


def fails(lab: Lab) -> float:
    """Seconds until a new connection's request is reset."""
    with lab.connect() as tcp:
        tcp.settimeout(20)
        tcp.sendall(request("/1k"))
        started = time.monotonic()
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)
        return time.monotonic() - started


def works(lab: Lab, count: int = 4) -> None:
    for number in range(count):
        assert lab.curl(f"/small/{number + 1}", timeout=5).status == 200


@pytest.mark.parametrize("seconds", [3600, pytest.param(-3600, marks=LONG)])
def test_a_balancer_of_another_time(
    lab: Lab,
    clocks: Clocks,
    standing: Download,
    seconds: int,
    report: Callable[[str], None],
) -> None:
    """No bridge believes it; each says by how much it is wrong, and clients are told."""
    starts = {bridge: lab.log_end(bridge) for bridge in BRIDGES}
    refused = [lab.growth(bridge) for bridge in BRIDGES]
    unanswered = lab.growth("balancer")
    clocks.set(seconds, "balancer")
    told = fails(lab)
    assert told < 15
    assert unanswered("handoff_unanswered") == 1
    assert sum(growth("old_handoff_epoch") for growth in refused) >= 3
    said = "".join(lab.log(bridge, starts[bridge]) for bridge in BRIDGES)
    (about, way), *_ = re.findall(r"balancer's clock is about (\d+) s (ahead of|behind) this", said)
    assert abs(int(about) - abs(seconds)) <= 8
    assert way == ("ahead of" if seconds > 0 else "behind")
    clocks.set(seconds, *BRIDGES)
    works(lab)
    report(f"clock off by {seconds} s: the client is told after {told:.1f} s")


@pytest.mark.parametrize("seconds", [pytest.param(10, marks=LONG), -10])
def test_a_clock_that_is_a_little_off(
    lab: Lab, clocks: Clocks, standing: Download, seconds: int
) -> None:
    """One unit of 8 s or two: a handoff is taken or refused for its time, and never for anything
    else."""
    refused = [lab.growth(bridge) for bridge in BRIDGES]
    clocks.set(seconds, "balancer")
    opened = [lab.connect() for _ in range(4)]
    for number, tcp in enumerate(opened):
        tcp.sendall(request(f"/small/{number + 1}", close=True))
    time.sleep(1)
    clocks.set(0, "balancer")
    for tcp in opened:
        with tcp:
            assert tcp.recv(15) == b"HTTP/1.1 200 OK"
    assert sum(growth("bad_handoff_mac") for growth in refused) == 0
    works(lab)


@pytest.mark.parametrize(
    "seconds", [3600, *(pytest.param(step, marks=LONG) for step in (-3600, 10, -10))]
)
def test_all_clocks_step_at_once(
    lab: Lab, clocks: Clocks, standing: Download, seconds: int
) -> None:
    """As on one host that holds several, or where the time's source was wrong."""
    stepped = [lab.growth(program) for program in PROGRAMS]
    clocks.set(seconds, *PROGRAMS)
    assert [growth("clock_steps") for growth in stepped] == [1, 1, 1]
    assert "WARNING clock_steps: this host's clock was set" in "".join(map(lab.log, PROGRAMS))
    works(lab)


def test_a_bridge_of_another_time_harms_its_own_connections_only(
    lab: Lab, clocks: Clocks, standing: Download
) -> None:
    paths = {bridge: lab.path_for("1k", bridge) for bridge in BRIDGES}
    clocks.set(3600, "backend1")
    refused = lab.growth("backend1")
    with lab.connect() as tcp:
        tcp.sendall(request(paths["backend1"], close=True))
        until(lambda: refused("old_handoff_epoch") >= 2, 5, "refused by name")
        assert lab.curl(paths["backend2"], timeout=5).backend == "backend2"
        clocks.set(0, "backend1")
        assert tcp.recv(15) == b"HTTP/1.1 200 OK", "the request is repeated, and taken now"
