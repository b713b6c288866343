"""A client far away: the server must not take the bridge, which is near, for it."""

from __future__ import annotations

from statistics import median

import pytest

from tests.e2e.lab import SERVER1, VIP, Lab
from tests.e2e.network import delay

pytestmark = [pytest.mark.root, pytest.mark.speed]

EVERYTHING = "-d 192.168.33.0/24"
LONGER = 1.2  # than direct, at most


def timeouts(lab: Lab) -> int:
    """Retransmission time-outs that the first server's TCP has had."""
    names, values = [
        line.split()
        for line in lab.run("backend1", "cat", "/proc/self/net/netstat").splitlines()
        if line.startswith("TcpExt:")
    ]
    return int(values[names.index("TCPTimeouts")])


@pytest.mark.parametrize("milliseconds", [50, 250])
@pytest.mark.parametrize("name", ["100k", "20m"])
def test_a_download_takes_as_long_as_the_distance_makes_it(
    lab: Lab, milliseconds: int, name: str
) -> None:
    path = lab.path_for(name, "backend1")
    through, direct = [], []
    with delay(lab, "client", EVERYTHING, milliseconds / 1000):
        before, unsampled = timeouts(lab), lab.growth("backend1")
        bbr = lab.run("backend1", "sysctl", "-n", "net.ipv4.tcp_congestion_control") == "bbr\n"
        for _ in range(3):
            through.append(lab.curl(path, to=VIP).seconds)
            direct.append(lab.curl(path, to=SERVER1).seconds)
        assert unsampled.reaches("handshakes_unsampled", 3 if bbr or milliseconds >= 150 else 0)
        assert timeouts(lab) == before
    print(f"\n{name} at {milliseconds} ms: {median(through):.3f} s, direct {median(direct):.3f} s")
    assert median(through) < LONGER * median(direct)
    assert median(through) > 2 * milliseconds / 1000, "the distance was not there"
