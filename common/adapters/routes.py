"""This host's addresses, interfaces and IPv4 routes, over netlink.

Nothing under /sys is read, which shows the first namespace after `nsenter --net`.
"""

import errno
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# These from linux/rtnetlink.h and linux/if.h:
MAIN_TABLE, LOCAL_TABLE = 254, 255  # RT_TABLE_MAIN, RT_TABLE_LOCAL
UNICAST, LOCAL = 1, 2  # RTN_UNICAST, RTN_LOCAL
ONLINK = 4  # RTNH_F_ONLINK
UP = 1  # IFF_UP
IP_MTU = 14  # of linux/in.h: of a connected socket's way
METRICS = {  # metrics that a changed route must keep, with their names in the ip command
    "RTAX_MTU": "mtu",
    "RTAX_ADVMSS": "advmss",
    "RTAX_WINDOW": "window",
    "RTAX_INITCWND": "initcwnd",
    "RTAX_INITRWND": "initrwnd",
}


class RouteError(Exception):
    """There is no such route or interface."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to an address. `mtu` in bytes, what the path is known to take included; a local
    address has the interface that holds it, not the loopback that its packets take. `congestion`
    is the route's own congestion control, None where the host's default holds.
    """

    interface: str
    mtu: int
    local: bool
    congestion: str | None


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A route of the main table: as `ip route change` wants it, and its congestion control."""

    words: str
    interface: str
    congestion: str | None


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    mtu: int
    up: bool


def interfaces() -> dict[str, Interface]:
    """The interfaces by name."""
    with _netlink() as netlink:
        return {link.name: link for link in _links(netlink).values()}


def interface_mtu(name: str) -> int:
    """The interface's MTU in bytes; raises RouteError if there is none of that name."""
    found = interfaces().get(name)
    if found is None:
        raise RouteError(f"there is no interface {name}")
    return found.mtu


def local_addresses() -> dict[str, str]:
    """This host's IPv4 addresses, each with the name of the interface that holds it."""
    with _netlink() as netlink:
        links = _links(netlink)
        held = [(m.get_attr("IFA_LOCAL"), m["index"]) for m in netlink.get_addr(family=2)]
    return {address: links[index].name for address, index in held if index in links}


def route_to(address: str) -> Route:
    """The route that a packet to an address takes now; raises RouteError if there is none."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415, as in _netlink

    with _netlink() as netlink:
        try:
            (found,) = netlink.route("get", family=socket.AF_INET, dst=address)
        except NetlinkError as error:
            why = errno.errorcode.get(error.code, str(error.code))
            raise RouteError(f"no route to {address} ({why})") from None
        link = _links(netlink)[found.get_attr("RTA_OIF")]
    if found["type"] == LOCAL:
        holder = local_addresses().get(address, link.name)  # 127.0.0.2 is local, but not listed
        return Route(holder, interface_mtu(holder), True, None)
    metrics = _metrics(found)
    mtu = metrics.get("RTAX_MTU") or link.mtu
    return Route(link.name, mtu, False, metrics.get("RTAX_CC_ALGO"))


def mtus_to(addresses: Iterable[str]) -> dict[str, int]:
    """The `mtu` of `route_to` for many addresses, quickly: each is asked of a socket of its own, in
    microseconds. Raises RouteError likewise."""
    with _netlink() as netlink:
        links = _links(netlink)
        local = {
            held.get_attr("IFA_LOCAL"): links[held["index"]].mtu
            for held in netlink.get_addr(family=socket.AF_INET)
            if held["index"] in links
        }
    return {
        address: local[address] if address in local else _mtu_to(address) for address in addresses
    }


def _mtu_to(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((address, 9))  # nothing is sent
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, str(error))
            raise RouteError(f"no route to {address} ({why})") from None
        return asking.getsockopt(socket.IPPROTO_IP, IP_MTU)


def local_route(address: str) -> str | None:
    """The interface that an own address's entry in the local table names; None where it has none.

    It need not be the one that holds the address.
    """
    with _netlink() as netlink:
        links = _links(netlink)
        for found in netlink.get_routes(family=socket.AF_INET, table=LOCAL_TABLE):
            if found["type"] == LOCAL and found.get_attr("RTA_DST") == address:
                return links[found.get_attr("RTA_OIF")].name
    return None


def main_table() -> list[TableEntry]:
    """The main table's unicast routes, those over several ways left out."""
    with _netlink() as netlink:
        links = _links(netlink)
        routes = list(netlink.get_routes(family=socket.AF_INET, table=MAIN_TABLE))
    return [
        TableEntry(
            " ".join(_words(route, links)),
            links[route.get_attr("RTA_OIF")].name,
            _metrics(route).get("RTAX_CC_ALGO"),
        )
        for route in routes
        if route["type"] == UNICAST and route.get_attr("RTA_OIF") in links
    ]


def _words(route: Any, links: dict[int, Interface]) -> Iterator[str]:
    """The route in the words of the ip command: change replaces it, so nothing may be missing."""
    destination = route.get_attr("RTA_DST")
    yield f"{destination}/{route['dst_len']}" if destination else "default"
    words = {"via": "RTA_GATEWAY", "src": "RTA_PREFSRC", "metric": "RTA_PRIORITY"}
    for word, attribute in words.items():
        if (value := route.get_attr(attribute)) is not None:
            yield f"{word} {value}"
    yield f"dev {links[route.get_attr('RTA_OIF')].name}"
    yield f"proto {route['proto']} scope {route['scope']}"
    if route["flags"] & ONLINK:
        yield "onlink"
    for attribute, value in _metrics(route).items():
        if attribute in METRICS:
            yield f"{METRICS[attribute]} {value}"


def _metrics(route: Any) -> dict[str, Any]:
    metrics = route.get_attr("RTA_METRICS")
    return dict(metrics["attrs"]) if metrics else {}


def _links(netlink: Any) -> dict[int, Interface]:
    """The interfaces by index."""
    return {
        link["index"]: Interface(
            link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU"), bool(link["flags"] & UP)
        )
        for link in netlink.get_links()
    }


def _netlink() -> Any:
    """An open netlink socket. The library is loaded only where a socket is wanted: it is large, and
    what serves packets asks in a child process (see common.adapters.aside).
    """
    from pyroute2 import IPRoute  # noqa: PLC0415

    return IPRoute()
