"""What this host's own firewall has to let pass on a bridge."""

from __future__ import annotations

from collections.abc import Iterator

from common.adapters import checks, routes
from common.adapters.checks import Problem
from common.adapters.rehearsal import Hook, Sample, eaten
from common.adapters.samples import CLIENT, PORT, datagram, fragmentation_needed, segment
from packetbridge.core.config import Backend, Config


def eaten_packets(config: Config) -> list[Problem]:
    """Problems for what it would not."""
    addresses = routes.local_addresses()
    samples = (s for backend in config.backends for s in _samples(config, backend, addresses))
    return eaten(samples, addresses)


def _samples(config: Config, backend: Backend, addresses: dict[str, str]) -> Iterator[Sample]:
    server, port, protocol = backend.server_address, backend.server_port, backend.protocol
    packet = datagram if protocol == "udp" else segment
    outside = config.interface or addresses.get(backend.address) or checks.likely_interface()
    local = server in addresses
    inside = outside if local else routes.route_to(server).interface
    response = packet(server, port, CLIENT, PORT)
    request = packet(CLIENT, PORT, server, port)
    to_server = f"-d {server} -p {protocol} --dport {port}"
    error = fragmentation_needed(server, response)
    errors = f"-d {server} -p icmp --icmp-type destination-unreachable"
    hook = Hook.INPUT if local else Hook.FORWARD
    yield Sample(f"clients' to {server}", hook, request, to_server, outside, inside)
    yield Sample(f"ICMP errors to {server}", hook, error, errors, outside, inside)
    mark = config.mark if protocol == "tcp" else 0
    if local:
        from_server = f"-s {server} -p {protocol} --sport {port}"
        what = f"{server} to clients"
        yield Sample(what, Hook.OUTPUT, response, from_server, outside, outside, mark)
    for vip in map(config.vip, config.dscps(backend)):
        to_client = packet(vip, backend.port, CLIENT, PORT)
        match = f"-s {vip} -p {protocol} --sport {backend.port}"
        yield Sample(f"{vip} to clients", Hook.OUTPUT, to_client, match, outside, outside, mark)
        if protocol == "tcp":
            answer = segment(backend.address, PORT, vip, backend.port)
            known = f"-d {vip} -p tcp --dport {backend.port}"
            what = f"answers to {vip}"
            yield Sample(what, Hook.OUTPUT, answer, known, outside, outside, mark)
        if not local:
            yield Sample(f"{vip} to clients", Hook.FORWARD, to_client, match, inside, outside)
