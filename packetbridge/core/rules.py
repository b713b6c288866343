"""Which packets are the bridge's: rules of the raw table, as `iptables-restore` arguments.

A rule that queues never lets a packet by when no program listens (no --queue-bypass): the kernel
would answer it with RST and so kill the connection.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from common.core import icmp
from packetbridge.core.config import MARK_MASK, Backend, Config


@dataclass(frozen=True)
class Kernel:
    """The kernel's path: where the eBPF program is pinned that says which of a local server's
    packets it leaves to the bridge, and the ``interfaces`` by which it translates the others."""

    unusual: object
    interfaces: Iterable[str]


def rules(
    config: Config,
    local: Container[str],
    kernel: Kernel | None = None,
    former: Iterable[tuple[Config, Backend]] = (),
) -> tuple[list[str], list[str]]:
    """The rules for (PREROUTING, OUTPUT). What exempts from connection tracking comes before what
    queues.

    `local` holds this host's own addresses. Whatever the bridge sends by raw socket must carry
    `config.mark` (any low 8 bits): the mark is what keeps it, and with tcp_fwmark_accept the
    answers of a local server, apart from direct connections to the same server, which stay
    tracked.

    With the `kernel`'s path, what that has translated for a local server carries the mark as well.

    `former` backends, each with the configuration that it was in, have connections still.
    """
    ways = [*((config, backend) for backend in config.backends), *former]
    here = [b for _, b in ways if b.server_address in local]
    remote = [b for _, b in ways if b.server_address not in local]
    queued_in = _unique(match for way in ways for match in _from_balancers(*way))
    queued_in += _unique(match for b in remote for match in _from_server(b))
    to_servers = _unique(_to_server(b) for b in remote)
    marked = [_marked(config)]
    to_datagram_servers, from_datagram_servers = _datagrams(here)
    untracked_in = queued_in + to_servers + to_datagram_servers
    to_clients = _unique(match for way in ways for match in _to_clients(*way))
    queue = f"-j NFQUEUE --queue-num {config.queue}"
    first_in, first_out = _of_the_kernel(config, here, queue, kernel)
    return (
        first_in + _untracked(untracked_in) + [f"{match} {queue}" for match in queued_in],
        first_out
        + _untracked(marked + to_clients + to_servers + from_datagram_servers)
        + list(_local_servers(config, here, queue, kernel)),
    )


def _of_the_kernel(
    config: Config, here: list[Backend], queue: str, kernel: Kernel | None
) -> tuple[list[str], list[str]]:
    """What comes first for (PREROUTING, OUTPUT), so that what the kernel translates passes few
    rules: what it has translated, and answers of servers of datagrams, small as they are."""
    if kernel is None:
        return [], []
    answers = _datagrams(here)[1]
    out = _untracked(answers)
    out += [f"{match} -m bpf --object-pinned {kernel.unusual} {queue}" for match in answers]
    out += [f"{match} -o {name} -j RETURN" for match in answers for name in kernel.interfaces]
    marked = _marked(config)
    return [*_untracked([marked]), f"{marked} -j RETURN"], out


def _from_balancers(config: Config, backend: Backend) -> Iterator[str]:
    """What was steered here: this DSCP and port only, as other programs set a DSCP as well."""
    for dscp in config.dscps(backend):
        steered = f"-d {backend.address} -m dscp --dscp {dscp}"
        yield f"{steered} -p {backend.protocol} --dport {backend.port}"
        for kind in icmp.ERRORS:
            yield f"{steered} -p icmp --icmp-type {kind}"


def _from_server(backend: Backend) -> Iterator[str]:
    """Answers of a server on another host, which come in as this host is its router or its peer;
    and what its host says of datagrams that it does not take."""
    protocol = backend.protocol
    server = f"-s {backend.server_address} -p {protocol} --sport {backend.server_port}"
    if backend.source == "client":
        yield server
    else:
        low, high = backend.ports
        yield f"{server} -d {backend.address} --dport {low}:{high}"
    if protocol == "udp":
        yield _unreachable(backend)


def _unreachable(backend: Backend) -> str:
    return f"-s {backend.server_address} -p icmp --icmp-type {icmp.UNREACHABLE}"


def _to_server(backend: Backend) -> str:
    """The way there of what `_from_server` matches: tracking sees both directions or neither."""
    server = f"-d {backend.server_address} -p {backend.protocol} --dport {backend.server_port}"
    if backend.source == "client":
        return server
    low, high = backend.ports
    return f"{server} -s {backend.address} --sport {low}:{high}"


def _datagrams(here: list[Backend]) -> tuple[list[str], list[str]]:
    """What goes to, and what comes from, servers of datagrams on this host: no mark tells what
    belongs to a client of a VIP, so that none of it is tracked, in either direction."""
    ends = _unique(
        f"{b.server_address} -p udp {{}} {b.server_port}" for b in here if b.protocol == "udp"
    )
    return (
        ["-d " + end.format("--dport") for end in ends],
        ["-s " + end.format("--sport") for end in ends],
    )


def _local_servers(
    config: Config, here: list[Backend], queue: str, kernel: Kernel | None
) -> Iterator[str]:
    """Answers of servers on this host: by mark, and the kernel's RST where no socket is left to
    mark it; one that belongs to a direct connection is let go by the program. Datagrams have no
    mark: the program knows which are of a client of a VIP.

    What leaves by an interface at which the kernel does not translate is the program's in any case:
    a tunnel, the loopback, one that has come since the start.
    """
    servers = [
        f"-s {b.server_address} -p tcp --sport {b.server_port}" for b in here if b.protocol == "tcp"
    ]
    marked = _unique(f"{server} {_marked(config)}" for server in servers)
    resets = _unique(f"{server} --tcp-flags RST RST" for server in servers)
    datagrams = _datagrams(here)[1]
    errors = _unique(_unreachable(b) for b in here if b.protocol == "udp")
    if kernel is not None and here:
        for match in marked:
            yield f"{match} -m bpf --object-pinned {kernel.unusual} {queue}"
        for match in resets + errors:
            yield f"{match} {queue}"
        for interface in kernel.interfaces:
            yield f"-o {interface} -j RETURN"
        resets, errors = [], []
    for match in marked + resets + datagrams + errors:
        yield f"{match} {queue}"


def _to_clients(config: Config, backend: Backend) -> Iterator[str]:
    for dscp in config.dscps(backend):
        yield f"-s {config.vip(dscp)} -p {backend.protocol} --sport {backend.port}"


def _marked(config: Config) -> str:
    return f"-m mark --mark {config.mark:#x}/{MARK_MASK:#x}"


def _untracked(matches: list[str]) -> list[str]:
    return [f"{match} -j CT --notrack" for match in matches]


def _unique(matches: Iterable[str]) -> list[str]:
    """The matches in their order, each once (backends share an address, or a server)."""
    return list(dict.fromkeys(matches))
