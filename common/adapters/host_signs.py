"""Signs of this host's kernel dropping packets for what is set wrong: counters, and the settings.

All of it may be read without privileges, and is of the reader's network namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTERS = ("snmp", "netstat")  # files in /proc/net
# What the kernel counts by (linux/uapi snmp.h): dropped by reverse-path filters; not forwarded for
# want of a route, or of ip_forward; not sent for want of a route; resets of TCP's, such as to who
# sends to a connection that there is none of; datagrams for ports that nobody has.
NAMES = (
    "TcpExt.IPReversePathFilter",
    "IpExt.InNoRoutes",
    "Ip.InAddrErrors",
    "Ip.OutNoRoutes",
    "Tcp.OutRsts",
    "Udp.NoPorts",
)
MOST = 64  # interfaces that are named
DISCARD = 9  # the port of a datagram that is never sent


@dataclass(frozen=True, slots=True)
class Signs:
    """``counters`` by NAMES; ``strict`` are interfaces whose reverse-path filter is; ``forwards``
    is net.ipv4.ip_forward; ``no_route`` says of addresses that there is none to why not."""

    counters: Mapping[str, int]
    strict: tuple[str, ...]
    forwards: bool
    no_route: Mapping[str, str]

    def encode(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "counters": dict(self.counters),
            "strict": list(self.strict),
            "forwards": self.forwards,
            "no_route": dict(self.no_route),
        }


def read(destinations: Iterable[str], proc: Path = Path("/proc")) -> Signs:
    """This host's, now. What it does not tell is left out."""
    counters: dict[str, int] = {}
    for file in COUNTERS:
        counters |= _counters(_text(proc / "net" / file))
    settings = proc / "sys" / "net" / "ipv4"
    return Signs(
        {name: counters[name] for name in NAMES if name in counters},
        tuple(_strict(settings / "conf"))[:MOST],
        _text(settings / "ip_forward").strip() != "0",
        {each: why for each in destinations if (why := _no_route(each))},
    )


def _counters(text: str) -> dict[str, int]:
    """Lines come in pairs: "Ip: Forwarding …", "Ip: 1 …"."""
    found: dict[str, int] = {}
    lines = [line.split() for line in text.splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group = names[0].removesuffix(":")
        pairs = zip(names[1:], values[1:], strict=False)
        found |= {f"{group}.{name}": int(value) for name, value in pairs}
    return found


def _strict(conf: Path) -> list[str]:
    """Interfaces that the greater of both settings makes strict (ip-sysctl.rst)."""
    for_all = _text(conf / "all" / "rp_filter").strip()
    found = []
    for interface in sorted(path.name for path in _entries(conf)):
        own = _text(conf / interface / "rp_filter").strip()
        if interface not in ("all", "default", "lo") and max(own, for_all) == "1":
            found.append(interface)
    return found


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeError):
        return ""


def _no_route(address: str) -> str:
    """Why nothing can be sent there, '' where it can; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((address, DISCARD))
        except OSError as error:
            return os.strerror(error.errno).lower() if error.errno else str(error)
    return ""
