"""Datagrams as many clients send them: made by scapy, each with a source address of a list, sent as
they are, and answered to sockets that have these addresses.

The host must hold all of the addresses, as a local route makes it do for a network:
ip route add local 10.33.0.0/24 dev lo. Whoever answers must have a route back to this host.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
from scapy.layers.inet import IP, UDP
from scapy.supersocket import L3RawSocket

MOST = 4096  # clients at once: each has a socket
FIRST_PORT, LAST_PORT = 32768, 60999  # what Linux gives to clients
LIVELINESS = 0.05  # seconds between two looks at the clock while nothing comes


@dataclass
class Client:
    """``answers`` are (text, who sent it), in the order of the datagrams; None: there was none."""

    address: str
    udp: socket.socket
    answers: list[tuple[str, str] | None] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.udp.getsockname()[1]
        return port


def addresses(sources: tuple[str, ...]) -> Iterator[str]:
    """All of a list of addresses, ranges (10.33.0.1-10.33.0.12) and networks."""
    for source in sources:
        first, dash, last = source.partition("-")
        try:
            if dash:
                low, high = ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)
                yield from (str(ipaddress.IPv4Address(n)) for n in range(int(low), int(high) + 1))
            else:
                yield from map(str, ipaddress.IPv4Network(first).hosts())
        except ValueError as error:
            raise click.BadParameter(f"{source}: {error}") from None


@click.command()
@click.option("--source", "sources", multiple=True, required=True, metavar="ADDRESS|RANGE|NETWORK")
@click.option("--to", required=True, metavar="ADDRESS:PORT", help="The service.")
@click.option("--datagrams", default=3, show_default=True, help="From each client.")
@click.option("--pause", default=0.02, show_default=True, help="Seconds between two rounds.")
@click.option("--patience", default=1.0, show_default=True, help="Seconds to wait for an answer.")
@click.option("--text", default="hello", show_default=True, help="What they say, with a number.")
@click.option("--same-port", is_flag=True, help="A client keeps its port, and so its flow.")
def main(
    sources: tuple[str, ...],
    to: str,
    datagrams: int,
    pause: float,
    patience: float,
    text: str,
    same_port: bool,
) -> None:
    """Send datagrams as all of these clients, and say who answered each: a line for a client.

    Exits with 1 where an answer is missing or came from elsewhere than it was sent to."""
    address, _, port = to.rpartition(":")
    service = (address, int(port))
    named = list(itertools.islice(addresses(sources), MOST + 1))
    if len(named) > MOST:
        raise click.BadParameter(f"are more than {MOST} clients", param_hint="--source")
    clients = [Client(name, bound(name)) for name in named]
    with L3RawSocket() as wire:
        for number in range(1, datagrams + 1):
            if not same_port and number > 1:
                for client in clients:
                    client.udp.close()
                    client.udp = bound(client.address)
            for client in clients:
                said = f"{text} {number}".encode()
                ends = {"src": client.address, "dst": service[0]}
                wire.send(IP(**ends) / UDP(sport=client.port, dport=service[1]) / said)
            collect(clients, time.monotonic() + patience)
            time.sleep(pause)
    for client in clients:
        print(client.address, *map(named_by, client.answers))
    from_service = f"{service[0]}:{service[1]}"
    if strange := {sender for _, sender in told(clients) if sender != from_service}:
        sys.exit(f"answers came from {', '.join(sorted(strange))}, not from {from_service}")
    if missing := sum(answer is None for client in clients for answer in client.answers):
        sys.exit(f"{missing} datagrams were not answered")


def bound(address: str) -> socket.socket:
    """A socket of a client's, with a port that it has not had lately."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    while True:
        try:
            udp.bind((address, random.randint(FIRST_PORT, LAST_PORT)))
            return udp
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE
                raise click.ClickException(f"{address} is not this host's: {error}") from None


def collect(clients: list[Client], deadline: float) -> None:
    """One answer for each client, or None where there is none in time."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.udp, selectors.EVENT_READ, client)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(LIVELINESS):
                client = key.data
                text, (address, port) = client.udp.recvfrom(65535)
                client.answers.append((text.decode(errors="replace"), f"{address}:{port}"))
                selector.unregister(client.udp)
        for key in selector.get_map().values():
            key.data.answers.append(None)


def named_by(answer: tuple[str, str] | None) -> str:
    """The backend's name, with which its answer begins."""
    return answer[0].partition(":")[0] if answer else "-"


def told(clients: list[Client]) -> Iterator[tuple[str, str]]:
    for client in clients:
        yield from (answer for answer in client.answers if answer is not None)


if __name__ == "__main__":
    main()
