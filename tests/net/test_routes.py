"""Addresses, interfaces and routes, as a namespace entered without its own /sys shows them."""

from collections.abc import Iterator

import pytest

from common.adapters import routes
from common.adapters.routes import Interface, Route
from tests.net.namespace import Namespace

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    created = Namespace("routes")
    created.shell(
        "ip link set eth1 mtu 1400;"
        "ip address add 192.168.33.20/32 dev eth0;"
        "ip address add 10.0.0.5/32 dev lo;"
        "ip route add default via 192.168.33.1 src 192.168.33.20 metric 7 mtu 1300 congctl cubic;"
        "ip route add 10.1.0.0/16 dev eth1;"
        "ip route add 10.2.0.0/16 via 192.168.33.2 advmss 1000 initcwnd 20"
    )
    yield created
    created.delete()


def test_addresses_with_their_interfaces(namespace: Namespace) -> None:
    assert namespace.call(routes.local_addresses) == {
        "127.0.0.1": "lo",
        "10.0.0.5": "lo",
        "192.168.33.10": "eth0",
        "192.168.33.20": "eth0",
    }


def test_interfaces(namespace: Namespace) -> None:
    assert namespace.call(routes.interfaces) == {
        "lo": Interface("lo", 65536, True),
        "eth0": Interface("eth0", 1500, True),
        "eth1": Interface("eth1", 1400, True),
    }
    assert namespace.call(routes.interface_mtu, "eth1") == 1400
    with pytest.raises(AssertionError, match="RouteError: there is no interface eth9"):
        namespace.call(routes.interface_mtu, "eth9")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.168.33.77", Route("eth0", 1500, False, None)),
        ("8.8.8.8", Route("eth0", 1300, False, "cubic")),
        ("10.1.2.3", Route("eth1", 1400, False, None)),
        ("192.168.33.20", Route("eth0", 1500, True, None)),
        ("127.0.0.2", Route("lo", 65536, True, None)),
    ],
)
def test_the_way_to_an_address(namespace: Namespace, address: str, expected: Route) -> None:
    assert namespace.call(routes.route_to, address) == expected


def test_the_mtu_of_many_ways(namespace: Namespace) -> None:
    asked = ("192.168.33.77", "8.8.8.8", "10.1.2.3", "192.168.33.20", "10.0.0.5")
    singly = {address: namespace.call(routes.route_to, address).mtu for address in asked}
    assert namespace.call(routes.mtus_to, asked) == singly
    namespace.shell("ip route add unreachable 10.4.0.0/16")
    with pytest.raises(AssertionError, match=r"RouteError: no route to 10.4.0.1 \(EHOSTUNREACH\)"):
        namespace.call(routes.mtus_to, ("8.8.8.8", "10.4.0.1"))


def test_local_routes(namespace: Namespace) -> None:
    assert namespace.call(routes.local_route, "192.168.33.20") == "eth0"
    assert namespace.call(routes.local_route, "10.0.0.5") == "lo"
    assert namespace.call(routes.local_route, "8.8.8.8") is None


def test_no_way_to_an_address(namespace: Namespace) -> None:
    namespace.shell("ip route add unreachable 10.3.0.0/16")
    with pytest.raises(AssertionError, match=r"RouteError: no route to 10.3.0.1"):
        namespace.call(routes.route_to, "10.3.0.1")


def test_a_route_in_words_is_the_same_route(namespace: Namespace) -> None:
    """`ip route change` with these words changes nothing."""
    before = namespace.shell("ip route show")
    entries = namespace.call(routes.main_table)
    assert [entry.congestion for entry in entries] == ["cubic", None, None, None]
    for entry in entries:
        kept = f"congctl {entry.congestion}" if entry.congestion else ""
        namespace.shell(f"ip route change {entry.words} {kept}")
    assert namespace.shell("ip route show") == before
