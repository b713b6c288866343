"""Connections that the kernel has, of both programs, with numbers at random."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

from balancer.core import config as balancer_config
from balancer.core.catalogue import built, even
from balancer.core.flow import Flow as BalancerFlow
from balancer.core.service import Service
from packetbridge.core.config import Backend
from packetbridge.core.entry import Entry
from packetbridge.core.flow import Flow
from packetbridge.core.states import Event
from packetbridge.program.fast_path import KernelPath
from tests.kernel.packets import Packets

ETHERNET = bytes(12) + b"\x08\x00"
NOT_OURS = 0xFFFFFFFF  # TC_ACT_UNSPEC
MARK, DSCP = 0x33440000, 9
CLIENT, VIP = IPv4Address("198.51.100.7").packed, IPv4Address("192.0.2.10").packed
BRIDGE, SERVER = IPv4Address("203.0.113.20").packed, IPv4Address("10.9.8.7").packed


def spliced(number: int, packets: Packets, dscp: int = DSCP) -> Flow:
    own = number % 2
    backend = Backend(str(IPv4Address(BRIDGE)), 80, str(IPv4Address(SERVER)), 8080)
    entry = Entry(backend, dscp, str(IPv4Address(VIP)), MARK, local=True, bbr=False)
    entry.mark = 0  # as packets of a test run have none
    inbound = CLIENT + BRIDGE + (1024 + number).to_bytes(2, "big") + b"\x00\x50"
    flow = Flow(entry, inbound, packets.number(), packets.number(), 0.0)
    source = CLIENT + inbound[8:10] if not own else CLIENT + (40_000 + number).to_bytes(2, "big")
    flow.address(source)
    flow.seq_down, flow.stamp_down = packets.number(), packets.number()
    if own:
        flow.addressing.seq_up, flow.addressing.stamp_up = packets.number(), packets.number()
    windows = random.Random(number)
    flow.up_window, flow.down_window = windows.choice((0, 0, 14, 3)), windows.randint(-14, 14)
    if number % 8 > 5:  # one that nobody reads: nothing is shifted, or only the bridge's own
        flow.seq_down = flow.stamp_down = flow.up_window = flow.down_window = 0
        flow.apply(Event.PASSED_ON)
    else:
        flow.apply(Event.SYN_OUT)
        flow.apply(Event.CONNECTED)
    assert flow.fast
    return flow


def recorded(path: KernelPath) -> Flow:
    """A spliced flow that the kernel has."""
    flow = spliced(0, Packets(1))
    path.follow(flow)
    path.settle()
    return flow


def service(bridge: bytes = BRIDGE) -> Service:
    backends = (balancer_config.Backend("b", str(IPv4Address(bridge))),)
    configured = balancer_config.Service("s", str(IPv4Address(VIP)), 80, DSCP, None, backends)
    config = balancer_config.Config((configured,))
    (service,) = built(config, even(config), 0.0).services.values()
    return service


def handed(number: int, packets: Packets, by: Service) -> BalancerFlow:
    key = CLIENT + VIP + (1024 + number).to_bytes(2, "big") + b"\x00\x50"
    flow = BalancerFlow(key, by, packets.number(), packets.number(), 0.0)
    flow.target = next(by.targets)
    flow.handoff_bytes = random.Random(number).choice((0, 1, 1000, 2**31))
    if number % 8 > 5:  # one that nobody reads
        flow.b = flow.handoff_bytes = 0
    return flow
