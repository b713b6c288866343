"""Which packets are the bridge's: rules of the raw table, as `iptables-restore` arguments.

A rule that queues never lets a packet by when no program listens (no --queue-bypass): the kernel
would answer it with RST and so kill the connection.
"""

from collections.abc import Container, Iterator

from common.core import icmp
from packetbridge.core.config import MARK_MASK, Backend, Config


def rules(
    config: Config, local: Container[str], unusual: object = None
) -> tuple[list[str], list[str]]:
    """The rules for (PREROUTING, OUTPUT); in each, what exempts from connection tracking is first.

    `local` holds this host's own addresses. Whatever the bridge sends by raw socket must carry
    `config.mark` (any low 8 bits): the mark is what keeps it, and with tcp_fwmark_accept the
    answers of a local server, apart from direct connections to the same server, which stay
    tracked.

    `unusual` is the path of the pinned eBPF program that says which of a local server's packets the
    kernel leaves to the bridge; what it has translated for a local server carries the mark as well.
    """
    here = [b for b in config.backends if b.server_address in local]
    remote = [b for b in config.backends if b.server_address not in local]
    queued_in = _unique(m for b in config.backends for m in _from_balancers(config, b))
    queued_in += _unique(_from_server(b) for b in remote)
    to_servers = _unique(_to_server(b) for b in remote)
    queued_out = _unique(m for b in here for m in _from_local_server(config, b))
    if unusual is not None:
        queued_out = [f"{match} -m bpf --object-pinned {unusual}" for match in queued_out]
    marked = [_marked(config)]
    untracked_in = queued_in + to_servers + (marked if unusual is not None else [])
    to_clients = _unique(m for b in config.backends for m in _to_clients(config, b))
    queue = f"-j NFQUEUE --queue-num {config.queue}"
    return (
        _untracked(untracked_in) + [f"{match} {queue}" for match in queued_in],
        _untracked(marked + to_clients + to_servers) + [f"{match} {queue}" for match in queued_out],
    )


def _from_balancers(config: Config, backend: Backend) -> Iterator[str]:
    """What was steered here: this DSCP and port only, as other programs set a DSCP as well."""
    for dscp in config.dscps(backend):
        steered = f"-d {backend.address} -m dscp --dscp {dscp}"
        yield f"{steered} -p tcp --dport {backend.port}"
        for kind in icmp.ERRORS:
            yield f"{steered} -p icmp --icmp-type {kind}"


def _from_server(backend: Backend) -> str:
    """Answers of a server on another host, which come in as this host is its router or its peer."""
    server = f"-s {backend.server_address} -p tcp --sport {backend.server_port}"
    if backend.source == "client":
        return server
    low, high = backend.ports
    return f"{server} -d {backend.address} --dport {low}:{high}"


def _to_server(backend: Backend) -> str:
    """The way there of what `_from_server` matches: tracking sees both directions or neither."""
    server = f"-d {backend.server_address} -p tcp --dport {backend.server_port}"
    if backend.source == "client":
        return server
    low, high = backend.ports
    return f"{server} -s {backend.address} --sport {low}:{high}"


def _from_local_server(config: Config, backend: Backend) -> Iterator[str]:
    """Answers of a server on this host: by mark, and the kernel's RST where no socket is left to
    mark it; one that belongs to a direct connection is let go by the program.
    """
    server = f"-s {backend.server_address} -p tcp --sport {backend.server_port}"
    yield f"{server} {_marked(config)}"
    yield f"{server} --tcp-flags RST RST"


def _to_clients(config: Config, backend: Backend) -> Iterator[str]:
    for dscp in config.dscps(backend):
        yield f"-s {config.vip(dscp)} -p tcp --sport {backend.port}"


def _marked(config: Config) -> str:
    return f"-m mark --mark {config.mark:#x}/{MARK_MASK:#x}"


def _untracked(matches: list[str]) -> list[str]:
    return [f"{match} -j CT --notrack" for match in matches]


def _unique(matches: Iterator[str]) -> list[str]:
    """The matches in their order, each once (backends share an address, or a server)."""
    return list(dict.fromkeys(matches))
