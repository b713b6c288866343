"""What this host's own firewall has to let pass on a balancer."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.core.config import Config, Service
from common.adapters import routes
from common.adapters.checks import Problem
from common.adapters.rehearsal import Hook, Sample, eaten
from common.adapters.samples import CLIENT, PORT, datagram, fragmentation_needed, segment


def eaten_packets(config: Config) -> list[Problem]:
    """Problems for what it would not."""
    addresses = routes.local_addresses()
    samples = (s for service in config.services for s in _samples(config, service, addresses))
    return eaten(samples, addresses)


def _samples(config: Config, service: Service, addresses: dict[str, str]) -> Iterator[Sample]:
    vip, port, dscp, protocol = service.vip, service.port, service.dscp, service.protocol
    packet = segment if protocol == "tcp" else datagram
    backends = config.backends_of(service)
    bridges = {backend.bridge: routes.route_to(backend.bridge) for backend in backends}
    first = next(iter(bridges.values())).interface
    clients = config.interface or addresses.get(vip, first)
    answer = packet(vip, port, CLIENT, PORT)
    if protocol == "tcp":  # of UDP nothing is answered from here
        yield Sample(
            f"{service.name} to clients",
            Hook.OUTPUT,
            answer,
            f"-s {vip} -p tcp --sport {port}",
            clients,
            clients,
        )
    for bridge, route in bridges.items():
        steered = packet(CLIENT, PORT, bridge, port, dscp)
        what, match = f"clients' to bridge {bridge}", f"-d {bridge} -p {protocol} --dport {port}"
        yield Sample(what, Hook.FORWARD, steered, match, clients, route.interface)
        if protocol == "tcp":  # handoffs that are repeated; datagrams are forwarded only
            yield Sample(what, Hook.OUTPUT, steered, match, clients, route.interface)
        yield Sample(
            f"ICMP errors to bridge {bridge}",
            Hook.FORWARD,
            fragmentation_needed(bridge, answer, dscp),
            f"-d {bridge} -p icmp --icmp-type destination-unreachable",
            clients,
            route.interface,
        )
