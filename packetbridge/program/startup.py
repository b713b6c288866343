"""What this host needs before the packetbridge can start."""

from common.adapters import checks, routes
from common.adapters.checks import Problem
from packetbridge.core.config import Backend, Config
from packetbridge.core.rules import rules


def problems(config: Config) -> list[Problem]:
    """Everything that is in the way of a start, or, not fatal, worth knowing."""
    lacking = checks.privileges("packetbridge")
    if lacking:
        return lacking  # the other checks need them
    found = checks.key(config.key_file, "packetbridge") + host_problems(config)
    return found + (checks.queue(config.queue) or checks.alone("packetbridge"))


def host_problems(config: Config) -> list[Problem]:
    """The same without the key, and what a running program of this configuration would hold."""
    lacking = checks.privileges("packetbridge")
    if lacking:
        return lacking
    local = routes.local_addresses()
    found = checks.queue_library() + checks.losses() + checks.interface(config.interface)
    found += checks.firewall(*rules(config, local))
    here = [b for b in config.backends if b.server_address in local]
    remote = [b for b in config.backends if b.server_address not in local]
    return found + _network(config, remote) + _local_servers(here) + _source_ports(config)


def _network(config: Config, remote: list[Backend]) -> list[Problem]:
    own = list(dict.fromkeys(b.address for b in config.backends))
    servers = list(dict.fromkeys(b.server_address for b in config.backends))
    names = checks.involved(config.interface, own, servers)
    found = [
        p for address in own for p in checks.address("bridge address", address, config.interface)
    ]
    found += [p for server in servers for p in checks.route("server", server)]
    found += checks.mtu(names) + checks.reverse_path(names)
    return found + (checks.forwarding(names) if remote else [])


def _local_servers(here: list[Backend]) -> list[Problem]:
    found = checks.marked_sockets() if here else []
    found += checks.local_routes(b.address for b in here if b.source == "bridge")
    if any(backend.hold_handshake == "off" for backend in here):
        found += checks.congestion()
    return found


def _source_ports(config: Config) -> list[Problem]:
    return checks.reserved_ports(
        dict.fromkeys(b.ports for b in config.backends if b.source == "bridge")
    )
