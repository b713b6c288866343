"""Which packets are the balancer's: rules of the raw table, as `iptables-restore` arguments.

A rule that queues never lets a packet by when no program listens (no --queue-bypass): the kernel
would answer it with RST and so kill the connection.

SYNs have a queue of their own: a flood fills that one, and established connections do not wait
behind it. So have datagrams, whose senders may be forged as well.
"""

from collections.abc import Iterable, Iterator

from balancer.core.config import Config, Service
from common.core import icmp

# Of what the balancer sends to clients and bridges, and of what its part in the kernel (which has
# the same) leaves to the stack to forward. A rule for each bridge would be thousands, which every
# packet passes.
MARK = 0x4C340000
STEERED = f"-m mark --mark {MARK:#x}"


def rules(config: Config, former: Iterable[Service] = ()) -> tuple[list[str], list[str]]:
    """The rules for (PREROUTING, OUTPUT); in each, what exempts from connection tracking is first.
    ``former`` services are not configured any more, but still have connections.

    Exempt is exactly what the balancer takes or sends, so that any other connection of the same
    addresses keeps its tracking.
    """
    services = (*config.services, *former)
    syns = _unique(f"{_to_service(s)} --syn" for s in services if s.protocol == "tcp")
    connections = _unique(match for s in services for match in _from_clients(s))
    datagrams = _unique(match for s in services for match in _datagrams(s))
    answers = _unique(
        f"-s {s.vip} -p tcp --sport {s.port}" for s in services if s.protocol == "tcp"
    )
    prerouting = [
        *_untracked([*connections, *datagrams, STEERED]),
        *_queued(syns, config.syn_queue),
        *_queued(connections, config.queue),
        *_queued(datagrams, config.datagram_queue),
    ]
    return prerouting, _untracked([*answers, STEERED])


def _from_clients(service: Service) -> Iterator[str]:
    """What clients (and the bridges, in answers) send to the VIP, but for UDP."""
    if service.protocol == "tcp":
        yield _to_service(service)
    for kind in icmp.ERRORS:
        yield f"-d {service.vip} -p icmp --icmp-type {kind}"


def _datagrams(service: Service) -> Iterator[str]:
    """What UDP clients send there. Later fragments have no ports: where the kernel puts datagrams
    together, for connection tracking, none come so far; else they are refused by name."""
    if service.protocol == "udp":
        yield _to_service(service)
        yield f"-d {service.vip} -p udp --fragment"


def _to_service(service: Service) -> str:
    return f"-d {service.vip} -p {service.protocol} --dport {service.port}"


def _untracked(matches: list[str]) -> list[str]:
    return [f"{match} -j CT --notrack" for match in matches]


def _queued(matches: list[str], number: int) -> list[str]:
    return [f"{match} -j NFQUEUE --queue-num {number}" for match in matches]


def _unique(matches: Iterator[str]) -> list[str]:
    """The matches in their order, each once (services share a VIP, or a bridge)."""
    return list(dict.fromkeys(matches))
