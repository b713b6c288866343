"""What this host needs before the packetbridge can start."""

from collections.abc import Iterator
from functools import partial

from common.adapters import checks, offloads, routes
from common.adapters.checks import Problem
from common.program import examination
from common.program.examination import Prerequisite
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
    return checks.privileges("packetbridge") or examination.problems(prerequisites(config))


def interfaces(config: Config) -> list[str]:
    """By which packets come in or go out."""
    own = [backend.address for backend in config.backends]
    servers = dict.fromkeys(backend.server_address for backend in config.backends)
    return checks.involved(config.interface, own, servers)


def prerequisites(config: Config) -> list[Prerequisite]:
    """What the configuration needs of the host."""
    local = routes.local_addresses()
    here = [b for b in config.backends if b.server_address in local]
    remote = [b for b in config.backends if b.server_address not in local]
    return [
        *examination.queues(),
        *_network(config, local, remote),
        *_local_servers(here),
        *_source_ports(config),
    ]


def _network(
    config: Config, local: dict[str, str], remote: list[Backend]
) -> Iterator[Prerequisite]:
    own = list(dict.fromkeys(b.address for b in config.backends))
    servers = list(dict.fromkeys(b.server_address for b in config.backends))
    names = interfaces(config)
    where = ", ".join(names)
    yield Prerequisite(
        f"interface {config.interface or where}",
        "is there and up",
        partial(checks.interface, config.interface),
    )
    yield Prerequisite(
        "firewall rules",
        "iptables and the kernel take them: NFQUEUE, CT, dscp, mark",
        partial(checks.firewall, *rules(config, local)),
        root=True,
    )
    for address in own:
        look = partial(checks.address, "bridge address", address, config.interface)
        yield Prerequisite(f"bridge {address}", "is an address of this host's", look)
    for server in servers:
        yield Prerequisite(
            f"server {server}", "there is a route", partial(checks.route, "server", server)
        )
    yield Prerequisite(
        "MTU",
        f"of {where}: no packet is larger than the {checks.LARGEST_MTU} bytes of a queue",
        partial(checks.mtu, names),
    )
    yield Prerequisite(
        "offloads",
        f"of {where}: no card merges segments for good (LRO)",
        partial(offloads.merged_by_the_card, names),
    )
    yield Prerequisite(
        "reverse path",
        "is not filtered: packets have the clients' addresses",
        partial(checks.reverse_path, names),
    )
    if remote:
        yield Prerequisite(
            "forwarding",
            "is on: packets are sent on to servers elsewhere",
            partial(checks.forwarding, names),
        )


def _local_servers(here: list[Backend]) -> Iterator[Prerequisite]:
    of_tcp = [b for b in here if b.protocol == "tcp"]
    if of_tcp:
        yield Prerequisite(
            "tcp_fwmark_accept",
            "is on: the server's packets carry the bridge's mark",
            checks.marked_sockets,
        )
    if known := [b.address for b in here if b.source == "bridge"]:
        yield Prerequisite(
            "local routes",
            "let a server here learn of narrow paths",
            partial(checks.local_routes, known),
        )
    if any(backend.hold_handshake == "off" for backend in of_tcp):
        yield Prerequisite(
            "congestion control", "is not BBR: handshakes are not held", checks.congestion
        )


def _source_ports(config: Config) -> Iterator[Prerequisite]:
    ranges = dict.fromkeys(b.ports for b in config.backends if b.source == "bridge")
    if ranges:
        yield Prerequisite(
            "source ports",
            "are reserved for the bridge",
            partial(checks.reserved_ports, ranges),
        )
