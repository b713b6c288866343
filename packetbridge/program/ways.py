"""The ways in that a configuration asks for, on this host."""

from __future__ import annotations

from dataclasses import dataclass

from common.adapters import routes
from packetbridge.core.config import Config
from packetbridge.core.entry import Entry


@dataclass(frozen=True, slots=True)
class Host:
    """``local`` are those of the servers' addresses that are this host's own; ``bbr``: its servers
    use it. What a remote one uses cannot be seen from here."""

    local: frozenset[str]
    bbr: bool


def entries(config: Config, host: Host) -> list[Entry]:
    found = []
    for backend in config.backends:
        local = backend.server_address in host.local
        for dscp in config.dscps(backend):
            vip = config.vip(dscp)
            found.append(Entry(backend, dscp, vip, config.mark, local, local and host.bbr))
    return found


def local(config: Config) -> frozenset[str]:
    """Which of the servers' addresses are this host's own."""
    servers = {backend.server_address for backend in config.backends}
    return frozenset(address for address in servers if routes.route_to(address).local)
