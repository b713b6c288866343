"""Programs at tc: beside those of others, replaced without a gap, and gone without a trace."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from balancer.program.fast_path import OBJECT
from common.adapters.bpf import attachment
from common.adapters.bpf.attachment import EGRESS, INGRESS, Attached, Hook
from common.adapters.bpf.libbpf import Library
from common.adapters.bpf.object import Object
from tests.net.namespace import Namespace

pytestmark = pytest.mark.root

NAME = "l3dsr-test"
SHOW = "tc filter show dev {} {}"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    created = Namespace("attach")
    yield created
    created.delete()


def attach(*parents: int) -> Attached:
    steer = Object(Library(), OBJECT).program("steer")
    return attachment.attach(NAME, [Hook(steer, parent) for parent in parents])


def attach_again(times: int) -> Counter[int]:
    """How many filters of ours were seen on eth0, while attaching again and again."""
    attach(INGRESS, EGRESS)
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def look() -> None:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname="eth0")[0]
            while not stop.is_set():
                filters = netlink.get_filters(index=index, parent=EGRESS)
                seen[sum(each.get_attr("TCA_OPTIONS") is not None for each in filters)] += 1

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(times):
        attach(INGRESS, EGRESS)
        time.sleep(0.01)
    stop.set()
    looking.join()
    return seen


def shown(namespace: Namespace, interface: str = "eth0") -> str:
    return "".join(namespace.shell(SHOW.format(interface, hook)) for hook in ("ingress", "egress"))


def test_interfaces_that_have_lost_their_filters(namespace: Namespace) -> None:
    """A loopback, or what is not there, has none to lose."""
    namespace.call(attach, INGRESS)
    names = ["lo", "eth0", "eth1", "eth9"]
    assert namespace.call(attachment.without, NAME, names) == []
    namespace.shell("tc qdisc delete dev eth1 clsact")
    assert namespace.call(attachment.without, NAME, names) == ["eth1"]


def test_all_ethernet_interfaces_and_a_trace_of_none(namespace: Namespace) -> None:
    """And none on others: loopback, and a tunnel, whose packets have no Ethernet header."""
    namespace.shell("ip tuntap add tun7 mode tun && ip tuntap add tap-of-15-chars mode tap")
    attached = namespace.call(attach, INGRESS, EGRESS)
    assert sorted(attached.names) == ["eth0", "eth1", "tap-of-15-chars"]
    assert attached.refused == []
    assert shown(namespace).count(NAME) == 2
    namespace.call(attachment.detach, NAME)
    assert "clsact" not in namespace.shell("tc qdisc show")


def test_a_program_is_replaced_without_a_moment_of_none_or_of_two(namespace: Namespace) -> None:
    seen = namespace.call(attach_again, 20)
    assert set(seen) == {1}
    assert sum(seen.values()) > 20
    assert shown(namespace).count(NAME) == 2


@pytest.mark.parametrize("of_others", ["u32 match u32 0 0", "bpf bytecode '1,6 0 0 0,'"])
def test_filters_of_others_stay(namespace: Namespace, of_others: str) -> None:
    namespace.shell("tc qdisc add dev eth0 clsact")
    add = "tc filter add dev eth0 ingress protocol ip pref 9"
    namespace.shell(f"{add} {of_others} flowid 1:1")
    before = shown(namespace)
    namespace.call(attach, INGRESS, EGRESS)
    assert shown(namespace).count(NAME) == 2
    namespace.call(attachment.detach, NAME)
    assert shown(namespace) == before != ""


def test_a_clsact_that_had_nothing_of_ours_stays(namespace: Namespace) -> None:
    namespace.shell("tc qdisc add dev eth0 clsact")
    namespace.call(attachment.detach, NAME)
    assert "clsact" in namespace.shell("tc qdisc show dev eth0")


def test_an_ingress_qdisc_of_others_takes_what_comes_in_and_refuses_what_leaves(
    namespace: Namespace,
) -> None:
    namespace.shell("tc qdisc add dev eth0 ingress")
    attached = namespace.call(attach, INGRESS)
    assert sorted(attached.names) == ["eth0", "eth1"]
    attached = namespace.call(attach, INGRESS, EGRESS)
    assert attached.names == ["eth1"]
    assert "eth0: " in attached.refused[0]
    namespace.call(attachment.detach, NAME)
    assert "ingress" in namespace.shell("tc qdisc show dev eth0")
    assert NAME not in shown(namespace)
