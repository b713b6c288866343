"""The routed lab: ways that are narrow elsewhere, and what the hosts' own kernels and rules see."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from scapy.layers.inet import ICMP as ICMPMessage
from scapy.layers.inet import IP

from tests.e2e import web
from tests.e2e.capture import SYN, capture
from tests.e2e.doctors import Doctor
from tests.e2e.firewalls import firewall, invalid, web_rules
from tests.e2e.lab import NAME, SCRIPT, VIP, Lab, until
from tests.e2e.quotations import ICMP, delivered, recorded
from tests.e2e.routed import (
    BACKENDS,
    BRIDGE1,
    BRIDGE2,
    CLIENT,
    FRONT,
    SERVER1,
    SERVER2,
    UPLOAD,
    download,
    filtered,
    forget_path_mtus,
    narrow,
    upload,
)
from tests.e2e.scripted import serving

pytestmark = pytest.mark.root

HOSTS = ("client", "client2", "balancer", "backend1", "backend2")
ROUTERS = ("router", "exit")
STRICT = 1
MB = 1 << 20
NARROW = 1300  # of ways that a test makes narrower
OTHER_PORT = 8022
HEADERS, HANDOFF = 40, 16  # bytes of IP and TCP, and of our option


def test_strict_reverse_path_filters_are_in_nobodys_way(
    routed: Lab, first_bridges: Callable[[str], str]
) -> None:
    """All hosts have one, and the router where the clients are: see provisioning/lab/routed.sh."""
    for host in HOSTS:
        assert routed.run(host, "sysctl", "-n", "net.ipv4.conf.all.rp_filter") == f"{STRICT}\n"
    before = {host: filtered(routed, host) for host in (*HOSTS, *ROUTERS)}
    received, _ = routed.bytes_at("balancer")
    download(routed, first_bridges("20m"))
    assert routed.bytes_at("balancer")[0] - received < MB, "responses do not pass the balancer"
    upload(routed, first_bridges(UPLOAD))
    assert {host: filtered(routed, host) for host in before} == before
    # and a filter it is
    with routed.socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(IP(src=SERVER1, dst=VIP) / ICMPMessage()), (VIP, 0))
    until(lambda: filtered(routed, "router") == before["router"] + 1, 2, "one is dropped")


def test_the_lab_script_knows_which_topology_is_up(routed: Lab) -> None:
    """A server counts as started when it answers at its address, which is the topology's."""
    environment = {**os.environ, "LAB_NAME": f"{NAME}-routed", "LAB_DIR": str(routed.directory)}
    environment.pop("LAB_TOPOLOGY", None)
    command = [SCRIPT, "restart", "nginx-backend2"]
    subprocess.run(command, env=environment, check=True, timeout=60)


def test_upload_over_a_narrow_way_to_the_balancer(
    routed: Lab, first_bridges: Callable[[str], str]
) -> None:
    """The client's own path-MTU discovery, nothing of ours."""
    with (
        routed.no_offloads(),
        narrow(routed, "router", VIP, "front", NARROW),
        capture(routed, "client", protocol=ICMP) as at_client,
        capture(routed, "balancer") as at_balancer,
    ):
        upload(routed, first_bridges(UPLOAD))
        told = recorded(at_client)
        came = [p for p in at_balancer.packets if p.way == (CLIENT, VIP)]
    assert {message.quoted.way for message in told} == {(CLIENT, VIP)}
    assert {message.mtu for message in told} == {NARROW}
    assert max(len(packet.data) for packet in came) == NARROW


@pytest.mark.parametrize("silent", [False, True], ids=["found out", "stated"])
def test_a_narrow_way_to_the_bridges(
    routed: Lab, first_bridges: Callable[[str], str], silent: bool
) -> None:
    """Clients are told of it by the MSS: a router's word about what is steered says nothing to
    them. The balancer asks the bridges' hosts by pings; where these are not answered, or the
    way shrinks later, a route states its MTU."""
    with ExitStack() as stack:
        stack.callback(routed.script, "restart", "balancer")
        stack.callback(forget_path_mtus, routed)
        stack.enter_context(narrow(routed, "router", BACKENDS, "servers", NARROW))
        if silent:
            for host in ("backend1", "backend2"):
                stack.enter_context(routed.sysctl(host, net_ipv4_icmp_echo_ignore_all=1))
            stack.enter_context(_stated(routed, BACKENDS, NARROW))
        routed.script("restart", "balancer")
        stack.enter_context(routed.no_offloads())
        at_client = stack.enter_context(capture(routed, "client"))
        at_bridge = stack.enter_context(capture(routed, "backend1"))
        upload(routed, first_bridges(UPLOAD))
        steered = [packet for packet in at_bridge.packets if packet.destination == BRIDGE1]
        syn_acks = [p for p in at_client.packets if p.source == VIP and p.flags & SYN]
        told = {int.from_bytes(packet.options[2], "big") for packet in syn_acks}
    assert told == {NARROW - HEADERS - HANDOFF}
    assert max(len(packet.data) for packet in steered) in (NARROW - HANDOFF, NARROW)
    assert any(253 in packet.options for packet in steered)


def test_clients_are_told_of_no_narrow_way_where_there_is_none(routed: Lab) -> None:
    """That of the responses is not the requests' way: the pings' answers come by it."""
    with capture(routed, "client") as at_client:
        assert routed.curl("/1k").status == 200
        syn_ack = next(p for p in at_client.packets if p.source == VIP and p.flags & SYN)
    assert int.from_bytes(syn_ack.options[2], "big") == 1500 - HEADERS - HANDOFF


def test_stateful_firewalls_let_icmp_errors_pass(
    routed: Lab, first_bridges: Callable[[str], str]
) -> None:
    rules = web_rules(VIP, {"backend1": (BRIDGE1, SERVER1), "backend2": (BRIDGE2, SERVER2)})
    with ExitStack() as stack:
        for host in rules:
            stack.enter_context(firewall(routed, host, rules[host]))
        messages = stack.enter_context(delivered(routed, "backend1"))
        download(routed, first_bridges("20m"))
        upload(routed, first_bridges(UPLOAD))
        assert messages.quotations()
        assert {host: invalid(routed, host) for host in rules} == dict.fromkeys(rules, 0)


def test_the_balancers_host_keeps_its_own_path_mtu_discovery(routed: Lab) -> None:
    """Say ssh at the VIP: what is no service's of ours is the kernel's to hear of."""
    content = (routed.directory / "www" / "1m").read_bytes()
    with (
        narrow(routed, "router", CLIENT, "clients", NARROW),
        serving(routed, lambda tcp: tcp.sendall(content), "balancer", (VIP, OTHER_PORT)),
        routed.connect(to=(VIP, OTHER_PORT)) as tcp,
    ):
        assert web.rest(tcp) == content
    assert f"mtu {NARROW}" in routed.run("balancer", "ip", "route", "get", CLIENT)


@contextmanager
def _stated(lab: Lab, destination: str, mtu: int) -> Iterator[None]:
    """A route of the balancer's host that says what the way takes."""
    lab.run("balancer", "ip", "route", "add", destination, "via", FRONT, "mtu", f"{mtu}")
    try:
        yield
    finally:
        lab.run("balancer", "ip", "route", "delete", destination)


def test_a_router_that_changes_the_dscp(routed: Lab) -> None:
    """The balancer's doctor tells it from a bridge that is not there; its command is the router's
    to run."""

    def way() -> dict[str, str]:
        lines = Doctor(routed, "balancer").lines()
        return next(line for line in lines if line["subject"] == f"DSCP 1 to {BRIDGE1}")

    try:
        change = f"-t mangle -A POSTROUTING -d {BRIDGE1} -j DSCP --set-dscp 9"
        routed.run("router", "iptables", *change.split())
        changed = way()
        assert changed["verdict"] == "not ok"
        assert changed["found"].startswith("arrives as 9")
        routed.run("router", "sh", "-c", changed["mend"])
        assert way()["verdict"] == "ok"
    finally:
        routed.run("router", "iptables", "-t", "mangle", "-F")
