"""A service over UDP with a backend on each of its ports: each answers with its name, and says who
sent what."""

from __future__ import annotations

import selectors
import socket

import click

Listening = tuple[str, tuple[str, int]]
PROBE = b"are you well?"  # the bridge's; answered like all others, but not worth a line


class Backend(click.ParamType):
    """NAME=ADDRESS:PORT."""

    name = "backend"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Listening:
        name, _, endpoint = value.partition("=")
        address, _, port = endpoint.rpartition(":")
        if not name or not address or not port.isdecimal():
            self.fail(f"{value} is not NAME=ADDRESS:PORT, such as one=192.168.33.30:5301")
        return name, (address, int(port))


@click.command()
@click.argument("backends", nargs=-1, required=True, type=Backend(), metavar="NAME=ADDRESS:PORT...")
def main(backends: tuple[Listening, ...]) -> None:
    """Serve on each of these ports until the signal that ends this."""
    selector = selectors.DefaultSelector()
    for name, endpoint in backends:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(endpoint)
        selector.register(udp, selectors.EVENT_READ, name)
    print(f"ready: {', '.join(name for name, _ in backends)}", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            answer(key.fileobj, key.data)


def answer(udp: socket.socket, name: str) -> None:
    """Take one datagram, and send it back with the backend's name before it."""
    text, (address, port) = udp.recvfrom(65535)
    udp.sendto(name.encode() + b": " + text, (address, port))
    if text != PROBE:
        print(f"{name} got {text.decode(errors='replace')!r} from {address}:{port}", flush=True)


if __name__ == "__main__":
    main()
