"""How large a packet the way to an address takes, as pings find it."""

import time
from collections.abc import Iterator

import pytest

from common.adapters.path_probe import ROUNDS, WAIT, path_mtus
from tests.net.namespace import Namespace

pytestmark = pytest.mark.root

OWN, NOBODY = "192.168.33.10", "192.168.33.77"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    created = Namespace("probe")
    yield created
    created.delete()


def dropping(namespace: Namespace, match: str) -> None:
    namespace.shell(f"iptables -A INPUT -p icmp --icmp-type echo-request {match} -j DROP")


def test_all_that_is_answered_is_taken(namespace: Namespace) -> None:
    assert namespace.call(path_mtus, {OWN: 1500}) == {OWN: 1500}
    assert namespace.call(path_mtus, {OWN: 1433}) == {OWN: 1433}
    assert namespace.call(path_mtus, {}) == {}


def test_a_thousand_ways_take_no_longer_than_one_that_is_silent(namespace: Namespace) -> None:
    namespace.shell("ip address add 10.9.0.0/16 dev lo")
    ways = {f"10.9.{number // 250}.{number % 250 + 1}": 1500 for number in range(1000)}
    assert namespace.call(_seconds, *ways) < ROUNDS * WAIT
    assert namespace.call(path_mtus, ways) == ways


def test_a_narrow_way(namespace: Namespace) -> None:
    """The next smaller of the usual sizes counts: there is nobody who would tell the exact one."""
    dropping(namespace, "-m length --length 1390:")
    assert namespace.call(path_mtus, {OWN: 1500}) == {OWN: 1380}


def test_a_lost_ping_is_sent_again(namespace: Namespace) -> None:
    dropping(namespace, "-m length --length 1500 -m statistic --mode nth --every 3 --packet 0")
    assert namespace.call(path_mtus, {OWN: 1500}) == {OWN: 1500}


def test_where_nothing_is_answered_what_is_known_stands(namespace: Namespace) -> None:
    dropping(namespace, "")
    assert namespace.call(path_mtus, {OWN: 1500, NOBODY: 1400}) == {OWN: 1500, NOBODY: 1400}
    assert namespace.call(_seconds, OWN) < (1 + ROUNDS) * WAIT + 0.5


def _seconds(*addresses: str) -> float:
    started = time.monotonic()
    path_mtus(dict.fromkeys(addresses, 1500))
    return time.monotonic() - started
