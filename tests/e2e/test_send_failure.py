"""Packets of the programs' own that their host does not send: counted and logged by the reason, and
made good by whoever sends again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.e2e.lab import CLIENT, SERVER1, VIP, Lab, until
from tests.e2e.load import load
from tests.soak import Amount

pytestmark = pytest.mark.root

# Seconds between two parts of a request, the first of which the balancer acknowledges: a packet of
# its own on either path, while SYNs are answered by the kernel on one.
ACKNOWLEDGED = 0.06

Fault = Callable[[Lab], AbstractContextManager[None]]


def changed(host: str, put: str, remove: str) -> Fault:
    @contextmanager
    def fault(lab: Lab) -> Iterator[None]:
        lab.run(host, *put.split())
        try:
            yield
        finally:
            lab.run(host, *remove.split())

    return fault


def firewall(host: str, rule: str) -> Fault:
    return changed(host, f"iptables -w -I OUTPUT {rule}", f"iptables -w -D OUTPUT {rule}")


FAULTS = {  # by program and counter
    ("balancer", "send_failed_enobufs"): changed(
        "balancer",
        "tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 1600",
        "tc qdisc delete dev eth0 root",
    ),
    ("balancer", "send_failed_eperm"): firewall("balancer", f"-s {VIP} -p tcp --sport 80 -j DROP"),
    ("balancer", "send_failed_ehostunreach"): changed(
        "balancer",
        f"ip route add unreachable {CLIENT}",
        f"ip route delete unreachable {CLIENT}",
    ),
    ("backend1", "send_failed_eperm"): firewall(
        "backend1", f"-d {SERVER1} -p tcp --dport 80 -j DROP"
    ),
}


@pytest.mark.parametrize(("program", "reason"), FAULTS)
def test_what_is_not_sent(
    lab: Lab, program: str, reason: str, amount: Amount, report: Callable[[str], None]
) -> None:
    counted, start = lab.growth(program), lab.log_end(program)
    rounds = amount(1, 10)
    tallies = []
    for number in range(rounds):
        with load(lab, 8, 20, ACKNOWLEDGED) as requests:
            requests.goes_on(10)
            so_far = counted(reason)
            with FAULTS[program, reason](lab):
                until(lambda: counted(reason) >= so_far + 3, 10, reason)  # noqa: B023
            requests.goes_on(50, 20)
        tallies.append(requests.tally)
        amount.progress(number + 1, rounds)
    assert [failure for tally in tallies for failure in tally.failures] == []
    log = lab.log(program, start)
    lines = re.findall(rf" WARNING {reason}: \d[\d.]+:\d+ -> \d[\d.]+:\d+: \w+.*\n", log)
    assert 1 <= len(lines) <= 15 * rounds, "at a bounded rate"
    report(
        f"{program}: {counted(reason)} {reason}; {sum(len(tally.seconds) for tally in tallies)} "
        f"requests, slowest {max(tally.slowest for tally in tallies):.1f} s"
    )
