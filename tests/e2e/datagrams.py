"""UDP services behind the VIP: servers of the tests' own on the backends' hosts, and clients with
many addresses, all of them on the client's host."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tests.e2e.capture import Packet
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, SERVER1, SERVER2, VIP, Lab
from tests.e2e.pooled import BOTH, extended, in_force, pool

PORT = 5300
SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
CLIENTS = "10.33.0.0/24"
PATIENCE = 2.0  # seconds for an answer
OFTEN = "interval = 0.1, jitter = 0.0, timeout = 0.5, rise = 1, fall = 2"
PROBE = "are you well?"
# The bridge asks its server so; the answer begins with the server's name.
CHECK = f'check = {{ kind = "udp", send = "{PROBE}", expect = "backend", {OFTEN} }}'


def address(number: int) -> str:
    """A client's, 1 to 254."""
    return f"10.33.0.{number}"


def service(port: int = PORT, more: str = "", name: str = "p") -> str:
    """A service over UDP, and its pool."""
    return f"""
[[services]]
name = "{name}"
vip = "{VIP}"
port = {port}
protocol = "udp"
dscp = 1
pool = "{name}"
{more}
"""


def entry(bridge: str, server: str, port: int = PORT, more: str = "") -> str:
    """A bridge's way to a server."""
    return f"""
[[backends]]
address = "{bridge}"
port = {port}
protocol = "udp"
server = "{server}:{port}"
{more}
"""


@contextmanager
def bridged(lab: Lab, port: int = PORT, more: str = "") -> Iterator[None]:
    """Both bridges have such a way to their servers."""
    with (
        extended(lab, "backend1", entry(BRIDGE1, SERVER1, port, more)),
        extended(lab, "backend2", entry(BRIDGE2, SERVER2, port, more)),
    ):
        yield


@contextmanager
def ready(lab: Lab, datapath: str, port: int = PORT) -> Iterator[None]:
    """The lab on a data path, and both bridges with a way to their servers. The kernel's path has
    room for datagrams only if a bridge starts with such a way; else a reload will do."""
    if datapath == lab.datapath and not lab.in_kernel:
        with bridged(lab, port):
            yield
        return

    def changed(more: str) -> Callable[[str], str]:
        return lambda text: text.replace(f'"{lab.datapath}"', f'"{datapath}"') + more

    with lab.configured(
        balancer=changed(" "),
        backend1=changed(entry(BRIDGE1, SERVER1, port)),
        backend2=changed(entry(BRIDGE2, SERVER2, port)),
    ):
        yield


@contextmanager
def balanced(
    lab: Lab,
    more: str = "",
    service_more: str = "",
    backends: str = BOTH,
    port: int = PORT,
    name: str = "p",
) -> Iterator[None]:
    """The service is the balancer's only one; ``more`` is of its pool. With a ``name`` of its own
    it has no clients yet."""
    text = service(port, service_more, name) + pool(name, backends, more)
    with in_force(lab, text):
        yield


@contextmanager
def many_addresses(lab: Lab) -> Iterator[None]:
    """The client's host has all addresses of a network, and everybody knows the way there."""
    lab.run("client", "ip", "route", "add", "local", CLIENTS, "dev", "lo")
    others = ("balancer", "backend1", "backend2")
    try:
        for host in others:
            lab.run(host, "ip", "route", "add", CLIENTS, "via", CLIENT)
        yield
    finally:
        lab.run("client", "ip", "route", "delete", "local", CLIENTS, "dev", "lo")
        for host in others:
            lab.run(host, "ip", "route", "delete", CLIENTS, check=False)


class Servers:
    """One on each backend's host, which answers a datagram with its name and what it got; to
    ``large N`` with N bytes more. ``got`` is what they received: (server, from whom, what)."""

    def __init__(self, lab: Lab, port: int = PORT) -> None:
        self.got: list[tuple[str, tuple[str, int], bytes]] = []
        self._lab, self._port = lab, port
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[str, socket.socket] = {}
        self._over = threading.Event()
        for name in SERVERS:
            self.open(name)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def socket(self, name: str) -> socket.socket:
        return self._sockets[name]

    def open(self, name: str) -> None:
        udp = self._lab.socket(name, socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((SERVERS[name], self._port))
        udp.setblocking(False)
        self._sockets[name] = udp
        self._selector.register(udp, selectors.EVENT_READ, name)

    def shut(self, name: str) -> None:
        """Its port is closed from now on."""
        udp = self._sockets.pop(name)
        self._selector.unregister(udp)
        udp.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        for name in list(self._sockets):
            self.shut(name)

    def _serve(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                try:
                    self._answer(key.fileobj, key.data)  # type: ignore[arg-type]
                except OSError:
                    continue  # shut meanwhile

    def _answer(self, udp: socket.socket, name: str) -> None:
        data, peer = udp.recvfrom(65535)
        word, _, size = data.partition(b" ")
        more = bytes(int(size)) if word == b"large" else b""
        if data != PROBE.encode():
            self.got.append((name, peer, data))
        udp.sendto(name.encode() + b" " + data + more, peer)


@contextmanager
def serving(lab: Lab, port: int = PORT) -> Iterator[Servers]:
    servers = Servers(lab, port)
    try:
        yield servers
    finally:
        servers.close()


class Speaker:
    """A client of the service: what it sends, and who answers. It takes answers of the VIP only."""

    def __init__(
        self, lab: Lab, source: str = CLIENT, port: int = 0, to: tuple[str, int] = (VIP, PORT)
    ) -> None:
        self._udp = lab.socket("client", socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.settimeout(PATIENCE)
        if port:  # another socket may have it, towards another service
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._udp.bind((source, port))
        self._udp.connect(to)

    def __enter__(self) -> Speaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._udp.close()

    @property
    def socket(self) -> socket.socket:
        return self._udp

    @property
    def end(self) -> tuple[str, int]:
        """Its own address and port."""
        name: tuple[str, int] = self._udp.getsockname()
        return name

    def asks(self, data: bytes = b"hello") -> bytes:
        """The answer to a datagram, without the name of who gave it."""
        return self._exchange(data)[1]

    def meets(self, data: bytes = b"hello") -> str:
        """The name of who answers."""
        return self._exchange(data)[0]

    def _exchange(self, data: bytes) -> tuple[str, bytes]:
        self._udp.send(data)
        name, _, answer = self._udp.recv(65535).partition(b" ")
        return name.decode(), answer


def met(
    lab: Lab, sources: Iterable[str], data: bytes = b"hello", to: tuple[str, int] = (VIP, PORT)
) -> dict[str, str]:
    """Who answers each of these clients, who come one after the other, each from a new port."""
    found = {}
    for source in sources:
        with Speaker(lab, source, to=to) as speaker:
            found[source] = speaker.meets(data)
    return found


def shares(found: dict[str, str]) -> Counter[str]:
    return Counter(found.values())


@contextmanager
def speakers(lab: Lab, count: int, source: str = CLIENT) -> Iterator[list[Speaker]]:
    """So many of one address, with a port each."""
    with ExitStack() as stack:
        yield [stack.enter_context(Speaker(lab, source)) for _ in range(count)]


def said(packet: Packet) -> bytes:
    """The data of an unfragmented datagram."""
    return packet.tcp[8:]


def checksum(packet: Packet) -> int:
    return int.from_bytes(packet.tcp[6:8], "big")
