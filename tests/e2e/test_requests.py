"""Many requests: none fails, none stalls, and each path has its backend."""

from __future__ import annotations

import math
import re

import pytest

from tests.e2e import web
from tests.e2e.lab import CLIENT, LAB, Lab

pytestmark = pytest.mark.root

# A lost or misdirected packet costs the client its shortest retransmission time-out, 200 ms; where
# a busy machine stands still for as long, nobody sends again what nothing came for.
STALL = 0.18  # seconds
PATHS = 400


def test_thousand_one_after_another(lab: Lab) -> None:
    before = lab.silences()
    tally = web.one_after_another(lab, 1000, "/1k", (LAB / "www" / "1k").read_bytes())
    assert tally.failures == []
    assert len(tally.seconds) == 1000
    assert tally.slowest < STALL or lab.silences() == before
    _nothing_lost(lab)


def test_ten_thousand_64_at_once(lab: Lab) -> None:
    before = lab.silences()
    tally = web.at_once(lab, 10_000, 64, "/1k", (LAB / "www" / "1k").read_bytes())
    assert tally.failures == []
    assert len(tally.seconds) == 10_000
    assert tally.slowest < STALL or lab.silences() == before
    _nothing_lost(lab)


def test_thousand_on_one_connection(lab: Lab) -> None:
    body = (LAB / "www" / "1k").read_bytes()
    grown = lab.growth("balancer")
    with lab.connect() as tcp:
        backends = set()
        for _ in range(1000):
            tcp.sendall(web.request("/1k"))
            response = web.response(tcp)
            assert (response.status, response.body) == (200, body)
            backends.add(response.backend)
        assert len(backends) == 1
        assert grown("connections") == 1


def test_pipelined_requests_are_answered_in_order(lab: Lab) -> None:
    files = [f"/small/{number}" for number in range(1, 21)]
    with lab.connect() as tcp:
        tcp.sendall(b"".join(web.request(file, close=file == files[-1]) for file in files))
        received = web.rest(tcp)
    assert received.count(b"HTTP/1.1 200 OK") == len(files)
    at = [received.index((LAB / "www" / file[1:]).read_bytes()) for file in files]
    assert at == sorted(at)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_other_methods_reach_a_backend(lab: Lab, method: str) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k", method=method, close=True))
        answer = web.rest(tcp)
    # nginx has no OPTIONS for files; that it says so is an answer of the backend's
    assert re.match(rb"HTTP/1.1 (200|405) ", answer)
    assert b"X-Backend: backend" in answer


def test_paths_spread_evenly(lab: Lab) -> None:
    shares = [_backend(lab, f"/spread-{number}") for number in range(PATHS)]
    _binomial(shares.count("backend1"), 1 / 2)
    _binomial(shares.count("backend2"), 1 / 2)


def test_paths_spread_by_weight(lab: Lab) -> None:
    def heavier(text: str) -> str:
        return text.replace("weight = 1\n", "weight = 3\n", 1)  # the first, backend1

    with lab.configured(balancer=heavier):
        shares = [_backend(lab, f"/spread-{number}") for number in range(PATHS)]
    _binomial(shares.count("backend1"), 3 / 4)
    _binomial(shares.count("backend2"), 1 / 4)


def test_query_and_port_do_not_matter(lab: Lab) -> None:
    first = {number: lab.curl(f"/small/{number}") for number in range(1, 9)}
    assert {answer.backend for answer in first.values()} == {"backend1", "backend2"}
    ports = set()
    for number, answer in first.items():
        for query in ("", "?a=1", "?a=2&b=/small/9"):
            again = lab.curl(f"/small/{number}{query}")
            assert (again.status, again.backend) == (200, answer.backend)
            ports.add(again.port)
    assert len(ports) == 24


def test_choice_survives_a_restart(lab: Lab) -> None:
    before = [_backend(lab, f"/spread-{number}") for number in range(20)]
    lab.script("restart", "balancer")
    assert [_backend(lab, f"/spread-{number}") for number in range(20)] == before


def test_debug_log_names_choice_and_key(lab: Lab) -> None:
    def verbose(text: str) -> str:
        return text.replace('log_level = "info"', 'log_level = "debug"')

    with lab.configured(balancer=verbose):
        start = lab.log_end("balancer")
        answer = lab.curl("/small/7?query=1")
        log = lab.log("balancer", start)
    flow = rf"{CLIENT}:{answer.port}\b.*"
    choice = rf"GET /small/7\?query=1 HTTP/1.1; key /small/7 -> {answer.backend}\n"
    assert re.search(rf"DEBUG {flow}{choice}", log), log
    assert "netlink" not in log, "what libraries say of themselves is not wanted"


def _backend(lab: Lab, path: str) -> str:
    """The backend that answers a request for a path (404 is an answer)."""
    with lab.connect() as tcp:
        tcp.sendall(web.request(path, close=True))
        answer = web.rest(tcp)
    found = re.search(rb"X-Backend: (\w+)", answer)
    assert found, answer[:200]
    return found[1].decode()


def _binomial(count: int, share: float) -> None:
    """Four standard deviations: by chance wrong once in 16,000 sets of paths, and ours is fixed."""
    deviation = math.sqrt(PATHS * share * (1 - share))
    assert abs(count - PATHS * share) < 4 * deviation, f"{count} of {PATHS} for a share of {share}"


def _nothing_lost(lab: Lab) -> None:
    for program in ("balancer", "backend1", "backend2"):
        assert lab.lost(program) == 0
        assert lab.counters(program).get("kernel_queue_lost", 0) == 0
