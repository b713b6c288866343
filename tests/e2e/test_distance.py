"""A client far away: the server must not take the bridge, which is near, for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import pytest

from tests.e2e import web
from tests.e2e.lab import CLIENT, SERVER1, VIP, Lab
from tests.e2e.network import delay
from tests.soak import Amount

pytestmark = [pytest.mark.root, pytest.mark.speed]

EVERYTHING = "-d 192.168.33.0/24"
LONGER = 1.2  # than direct, at most
QUICK = 0.5  # seconds in which any data path moves the larger file, if the machine does no more


@dataclass
class Times:
    """Seconds of downloads, measured in turn: by the far client through the VIP and direct, and
    through the VIP by a client nearby."""

    through: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    near: list[float] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return len(self.through)

    @property
    def busy(self) -> float:
        """What is added to the time that the distance makes: nothing, unless the machine has so
        much else to do that it moves the packets more slowly than the distance lets them come."""
        near = median(self.near)
        return near if near > QUICK else 0.0

    def as_long(self) -> bool:
        """The fastest are compared: what else went on could only add to the others."""
        return min(self.through) < LONGER * min(self.direct) + self.busy

    def __str__(self) -> str:
        lists = {"seconds": self.through, "direct": self.direct, "near": self.near}
        return ", ".join(
            f"{name} {' '.join(f'{value:.2f}' for value in sorted(values))}"
            for name, values in lists.items()
        )


@pytest.fixture(scope="module", params=["bbr", "cubic"])
def algorithm(request: pytest.FixtureRequest, running_lab: Lab) -> Iterator[str]:
    """The congestion control of the first server towards the client: its route's, while the host's
    default is another. The bridge looks at the routes when it starts."""
    lab, name = running_lab, str(request.param)
    route = ("route", "add", CLIENT, "dev", "eth0", "congctl", name)
    with lab.sysctl("backend1", net_ipv4_tcp_congestion_control="reno"):
        lab.run("backend1", "ip", *route)
        try:
            lab.script("restart", "backend1")
            yield name
        finally:
            lab.run("backend1", "ip", "route", "delete", *route[2:])
    lab.script("restart", "backend1")


def timeouts(lab: Lab) -> int:
    """Retransmission time-outs that the first server's TCP has had."""
    return lab.kernel_count("backend1", "netstat", "TcpExt", "TCPTimeouts")


@pytest.mark.parametrize("to", [VIP, SERVER1], ids=["through the VIP", "direct"])
def test_the_servers_socket_has_the_routes_congestion_control(
    lab: Lab, algorithm: str, to: str
) -> None:
    path = lab.path_for("1k", "backend1")
    with lab.connect(to=(to, 80)) as tcp:
        tcp.sendall(web.request(path))
        assert web.response(tcp).status == 200
        port = tcp.getsockname()[1]
        shown = lab.run("backend1", "ss", "-tinH", "state", "established", f"dport = :{port}")
    assert set(re.findall(r"\b(bbr|cubic|reno)\b", shown)) == {algorithm}, shown


@pytest.mark.parametrize("milliseconds", [50, 250])
@pytest.mark.parametrize("name", ["100k", "20m"])
def test_a_download_takes_as_long_as_the_distance_makes_it(
    lab: Lab,
    algorithm: str,
    milliseconds: int,
    name: str,
    amount: Amount,
    report: Callable[[str], None],
) -> None:
    path, times = lab.path_for(name, "backend1"), Times()
    fewest, most = amount((1, 6), (5, 10))  # rounds; more where the machine is busy
    with delay(lab, "client", EVERYTHING, milliseconds / 1000):
        before, unsampled = timeouts(lab), lab.growth("backend1")
        while times.rounds < fewest or (times.rounds < most and not times.as_long()):
            times.through.append(lab.curl(path, to=VIP).seconds)
            times.near.append(lab.curl(path, host="client2").seconds)
            times.direct.append(lab.curl(path, to=SERVER1).seconds)
            amount.progress(times.rounds, fewest)
        asked_twice = times.rounds if algorithm == "bbr" or milliseconds >= 150 else 0
        assert unsampled.reaches("handshakes_unsampled", asked_twice)
        timed_out = timeouts(lab) - before
    report(f"{times}; {timed_out} time-outs")
    assert timed_out == 0
    assert times.as_long()
    assert median(times.through) < 1.5 * median(times.direct) + times.busy, "a few were fast"
    assert min(times.through) > 2 * milliseconds / 1000, "the distance was not there"
