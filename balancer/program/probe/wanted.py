"""What a probe is to ask for, as its words have it."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import SplitResult, urlsplit

from common.adapters import tls_exchange
from common.core.config import BALANCER_PORT, BRIDGE_PORT

HTTP, HTTPS, TCP, UDP = "http", "https", "tcp", "udp"
PORTS = {HTTP: 80, HTTPS: 443}
MOST_SENT = 65507  # bytes: the largest datagram's
RIGHT = (
    "http://VIP[:PORT]/PATH, https://NAME[:PORT]/PATH with --to VIP, tcp://VIP:PORT or "
    "udp://VIP:PORT with --send, such as http://192.168.33.10/"
)
_ENDPOINT = re.compile(r"([0-9.]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for, and whom: ``balancer`` and ``bridges`` are endpoints, ADDRESS:PORT. ``name``
    is the URL's own, which TLS is told; ``send`` a datagram's data; ``authorities`` a file of the
    certificates that the server's must be signed by. Seconds."""

    scheme: str
    vip: str
    port: int
    name: str
    host: str
    path: str
    balancer: str
    bridges: Sequence[str]
    patience: float
    send: bytes = b""
    authorities: str | None = None

    @property
    def service(self) -> str:
        return f"{self.vip}:{self.port}"

    @property
    def protocol(self) -> str:
        """The service's."""
        return UDP if self.scheme == UDP else TCP


def wanted(
    url: str,
    to: str | None,
    host: str | None,
    send: str | None,
    balancer: str | None,
    bridges: Sequence[str],
    patience: float,
    authorities: str | None,
) -> Wanted:
    """Raises ValueError with what is wrong with the words, and what would be right."""
    parts, port = _parted(url)
    if (parts.scheme == UDP) is (send is None):
        raise ValueError("--send is for udp://, and that needs it; right would be --send TEXT")
    if authorities is not None:
        _check(authorities, parts.scheme)
    name = parts.hostname or ""
    vip, _, at = (f"{_resolved(name)}:{port}" if to is None else _to(to, port)).partition(":")
    return Wanted(
        parts.scheme,
        vip,
        int(at),
        name,
        host or parts.netloc,
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        endpoint("--balancer", balancer or vip, BALANCER_PORT),
        [endpoint("--bridge", each, BRIDGE_PORT) for each in bridges],
        patience,
        b"" if send is None else _data(send),
        authorities,
    )


def endpoint(flag: str, text: str, port: int) -> str:
    """ADDRESS:PORT of ADDRESS[:PORT]."""
    found = _ENDPOINT.fullmatch(text)
    try:
        if found is None or not 0 < int(found[2] or port) < 65536:
            raise ValueError
        return f"{IPv4Address(found[1])}:{int(found[2] or port)}"
    except (ValueError, AddressValueError):
        message = f"{flag}: {text!r} is wrong; right would be ADDRESS or ADDRESS:PORT"
        raise ValueError(message) from None


def _parted(url: str) -> tuple[SplitResult, int]:
    """A URL's parts, and its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
        known = parts.scheme in (*PORTS, TCP, UDP)
        (parts.hostname or "").encode("idna")  # raises for what is none
        sound = port and parts.hostname and not parts.username and _sendable(url)
        plain = parts.scheme in PORTS or not (parts.path.strip("/") or parts.query)
        if not (known and sound and plain):
            raise ValueError
    except ValueError:
        raise ValueError(f"{url!r} is wrong; right would be {RIGHT}") from None
    return parts, port


def _check(authorities: str, scheme: str) -> None:
    if scheme != HTTPS:
        raise ValueError("--cacert is for https://; right would be without it")
    try:
        tls_exchange.checking(authorities)
    except OSError as error:
        message = f"--cacert: {authorities!r}: {error}; right would be a file of certificates (PEM)"
        raise ValueError(message) from None


def _sendable(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _to(text: str, port: int) -> str:
    """ADDRESS:PORT of what --to says, which may be a name."""
    name, _, at = text.partition(":")
    return endpoint("--to", f"{_resolved(name)}:{at or port}", port)


def _resolved(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"{name!r} has no IPv4 address ({error}); right would be --to ADDRESS"
        raise ValueError(message) from None
    return str(found[0][4][0])


def _data(text: str) -> bytes:
    """Bytes of TEXT, or of hex:DIGITS."""
    try:
        data = bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()
        if len(data) > MOST_SENT:
            raise ValueError
    except ValueError:
        message = f"--send: {text[:40]!r} is wrong; right would be TEXT or hex:0A1B"
        raise ValueError(f"{message}, up to {MOST_SENT} bytes") from None
    return data
