"""A changed configuration while the balancer runs: it holds at once and as a whole, or not at all;
and connections in progress go on, whatever it says of their route, backend, pool or service."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.bench.reload import measure
from tests.e2e.controlled import client, give, seen
from tests.e2e.lab import BRIDGE1, BRIDGE2, CONFIGURATIONS, SERVER1, SERVER2, VIP, Lab, until
from tests.e2e.load import download
from tests.e2e.pooled import (
    FIRST,
    SECOND,
    extended,
    hang_up,
    held,
    in_force,
    pending,
    pool,
    reload,
    rows,
    service,
    write,
)

pytestmark = pytest.mark.root

OTHER = 8080
SECOND_SERVICE = f"""
[[services]]
name = "other"
vip = "{VIP}"
port = {OTHER}
dscp = 1
pool = "p"
"""
MISTAKES = {
    "services[0].pool": ('pool = "p"\n', 'pool = "q"\n'),
    "pools[0].policy": ("[[pools]]", '[[pools]]\npolicy = "fastest"'),
    "pools[0].backends[1].bridge": (BRIDGE2, "192.168.33"),
    "pools[0].backends[0].weight": ('backend1",', 'backend1", weight = -1,'),
}


def test_mistakes_are_all_named_and_leave_what_is_in_force(lab: Lab) -> None:
    with in_force(lab, service() + pool()):
        wrong = service() + pool()
        for right, mistake in MISTAKES.values():
            assert right in wrong
            wrong = wrong.replace(right, mistake, 1)
        wrong += '\n[[routes]]\nhost = "-"\npool = "p"\n'
        write(lab, wrong)
        file = lab.directory / "etc" / CONFIGURATIONS["balancer"]
        start = lab.log_end("balancer")
        done = give(lab, "balancer", "reload")
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        for path in ("routes[0].host", *list(MISTAKES)[1:]):
            (line,) = (line for line in lines if f": {path}: " in line)
            assert line.startswith(f"{file}: "), line
            assert "right would be" in line
        assert lines[-1].endswith("the configuration in force stays as it is")
        for line in lines[:-1]:
            assert f"the configuration in force stays as it is: {line}" in lab.log(
                "balancer", start
            )
        assert lab.curl("/1k").status == 200
        assert {row["pool"] for row in rows(lab)} == {"p"}

        write(lab, (service() + pool()).replace(*MISTAKES["services[0].pool"]))
        start = lab.log_end("balancer")
        hang_up(lab)
        told = "services[0].pool: there is no pool 'q'; right would be 'p'"
        until(lambda: told in lab.log("balancer", start), 5, "the log has it")
        write(lab, service() + pool())
        with another_queue(lab):  # what only a start can change
            (mistake,) = reload(lab)
            assert mistake == "queue: is another than at the start; right would be the same, " + (
                "or a restart"
            )
        assert reload(lab) == []
        assert lab.curl("/1k").status == 200


@contextmanager
def another_queue(lab: Lab) -> Iterator[None]:
    """Its number in the balancer's file."""
    file = lab.directory / "etc" / CONFIGURATIONS["balancer"]
    before = file.read_text()
    changed = re.sub("(?m)^queue = .*$", "queue = 3400", before)
    assert changed != before
    file.write_text(changed)
    try:
        yield
    finally:
        file.write_text(before)


def test_a_signal_brings_a_new_route_and_pool(lab: Lab) -> None:
    with in_force(lab, service() + pool(backends=FIRST)):
        assert lab.curl("/1k").backend == "backend1"
        route = '\n[[routes]]\npath_prefix = "/1"\npool = "new"\n'
        write(lab, service() + route + pool(backends=FIRST) + pool("new", SECOND))
        start = lab.log_end("balancer")
        hang_up(lab)
        done = "a changed configuration is in force"
        until(lambda: done in lab.log("balancer", start), 5, "it is in force")
        assert lab.curl("/1k").backend == "backend2"
        assert lab.curl("/20m", "-I").backend == "backend1"
        status = seen(lab, "balancer", "status")
        assert status["counts"]["reconfigured"] >= 1


@pytest.mark.parametrize(
    "after",
    [
        service() + pool(backends=SECOND),
        service("new") + pool("new", SECOND),
        service() + pool(more='policy = "least-pending"\nkey = "source"'),
    ],
    ids=["backend removed", "pool removed", "other policy"],
)
def test_a_download_over_a_reload_arrives_whole(lab: Lab, after: str) -> None:
    with in_force(lab, service() + pool()):
        path = lab.path_for("20m", "backend1")
        with download(lab, path, "12M") as running, held(lab, 1, lab.path_for("1k", "backend1")):
            running.goes_on(100_000)
            write(lab, after)
            assert reload(lab) == []
            removed = "least" not in after
            if removed:
                assert {lab.curl(path, "-I").backend for _ in range(3)} == {"backend2"}
            if "new" not in after:
                row = next(row for row in rows(lab) if row["name"] == "backend1")
                assert row["pending"] == 2
                assert (row["state"] == "draining") == removed
            running.arrives(20)
        if "new" not in after:
            until(lambda: not pending(lab).get("backend1"), 5, "its count falls to 0")


def entry(bridge: str, server: str) -> str:
    return f'\n[[backends]]\naddress = "{bridge}"\nport = {OTHER}\nserver = "{server}:80"\n'


def fetch(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    url = f"http://{VIP}:{OTHER}/1k"
    return lab.result("client", "curl", "-sS", "-o", "/dev/null", "-m", "4", *words, url)


def test_a_service_comes_goes_and_comes_again(lab: Lab) -> None:
    """On another port, whose packets are the balancer's by its firewall rules from then on. What
    goes on there does so without it, and the rules stay until that is over."""
    with ExitStack() as closing:
        for program, bridge, server in (
            ("backend1", BRIDGE1, SERVER1),
            ("backend2", BRIDGE2, SERVER2),
        ):
            closing.enter_context(extended(lab, program, entry(bridge, server)))
        own = service() + pool() + "\n[timeouts]\nclosing = 1.0\n"
        closing.enter_context(in_force(lab, own))
        assert fetch(lab).returncode == 7, "nobody listens there"
        rule = f"--dport {OTHER}"
        assert not [line for line in lab.rules("balancer") if rule in line]

        write(lab, SECOND_SERVICE + own)
        assert reload(lab) == []
        assert [line for line in lab.rules("balancer") if rule in line]
        assert fetch(lab).returncode == 0

        with download(lab, "20m", "8M", f"{VIP}:{OTHER}") as running:
            running.goes_on(100_000)
            write(lab, own)
            assert reload(lab) == []
            assert fetch(lab).returncode == 7, "refused, at once"
            assert lab.curl("/1k").status == 200
            running.goes_on(1_000_000)
            write(lab, SECOND_SERVICE + own)
            assert reload(lab) == []
            assert fetch(lab).returncode == 0
            running.arrives(20)

        write(lab, own)
        assert reload(lab) == []
        gone = lambda: not [line for line in lab.rules("balancer") if rule in line]  # noqa: E731
        until(gone, 12, "its rules are gone")
        assert fetch(lab).returncode == 7
        with client(lab) as asking:
            assert len(asking.ask("status")["services"]) == 1


@pytest.mark.speed
def test_a_reload_of_a_thousand_backends_holds_no_packets_up(
    lab: Lab, report: Callable[[str], None]
) -> None:
    """Under a second, and 50 ms, on a machine that does nothing else: see tests/bench/reload.py."""
    (found,) = measure(lab, pools=100, backends=10, times=1)
    text = f"reload {found.whole * 1e3:.0f} ms, slowest answer {found.slowest * 1e3:.0f} ms"
    report(f"{text} of {found.requests}, before {found.slowest_before * 1e3:.0f} ms")
    assert found.whole < 3.0
    assert found.slowest < 0.2 + found.slowest_before
