"""What a host's own firewall would do to our packets, tried with such packets.

Its rules are copied into a network namespace with interfaces and addresses of the same names, which
goes with the process that tries, and packets of each kind are sent through there: the kernel itself
judges, whichever way the rules are written. That none of our packets is tracked is imitated by not
tracking any. Sets of ipset's, and what depends on routes or on what has passed before, are not
copied.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.adapters.checks import Problem
from common.adapters.firewall import FirewallError, run
from common.adapters.own_network import in_own_network
from common.adapters.raw_socket import RawSockets
from common.adapters.readable import readable
from common.adapters.routes import RouteError

TABLES = ("mangle", "nat", "filter", "security")  # iptables' own, besides raw
UNTRACKED = "*raw\n-A PREROUTING -j CT --notrack\n-A OUTPUT -j CT --notrack\nCOMMIT\n"
WAIT = 0.15  # seconds for a packet to come out
# The built-in chains on a packet's way, by the one that decides.
CHAINS = {
    "INPUT": ("PREROUTING", "INPUT"),
    "FORWARD": ("PREROUTING", "FORWARD", "POSTROUTING"),
    "OUTPUT": ("OUTPUT", "POSTROUTING"),
}

_IPV4_TYPE = 0x0800
_UP, _NOARP, _MULTICAST = 1, 0x80, 0x1000  # from linux/if.h


class Hook(StrEnum):
    """The chain that decides."""

    INPUT = "INPUT"
    FORWARD = "FORWARD"
    OUTPUT = "OUTPUT"


@dataclass(frozen=True, slots=True)
class Sample:
    """A packet of a kind, ``what``, that comes in by ``enters`` (or from this host, with a
    ``mark``) and leaves by ``leaves`` (or is for this host); ``match`` is iptables' for the kind.
    """

    what: str
    hook: Hook
    packet: bytes
    match: str
    enters: str
    leaves: str
    mark: int = 0


def eaten(samples: Iterable[Sample], addresses: Mapping[str, str]) -> list[Problem]:
    """Samples that would not come through as they are; making one may raise RouteError.
    ``addresses`` are this host's, with the interface that holds each."""
    try:
        packets = list(dict.fromkeys(samples))
        rules = "".join(run("iptables-save", ["-t", table]) for table in TABLES)
        return in_own_network(_rehearse, rules, _native_tables(), packets, addresses)
    except (FirewallError, RouteError, OSError) as error:
        what = f"the firewall's rules could not be tried: {error}"
        return [Problem(what, "iptables-save; see the README for what must pass", fatal=False)]


def _native_tables() -> str:
    """nftables' tables that are not iptables'."""
    if shutil.which("nft") is None:
        return ""
    text = ""
    for line in run("nft", ["list", "tables"]).splitlines():
        _, family, name = line.split()
        if family in ("inet", "netdev") or (family == "ip" and name not in (*TABLES, "raw")):
            text += run("nft", ["list", "table", family, name])
    return text


# --- in the namespace ---


def _rehearse(
    rules: str, native: str, samples: Sequence[Sample], addresses: Mapping[str, str]
) -> list[Problem]:
    macs = _network(samples, addresses)
    run("iptables-restore", [], UNTRACKED + rules)
    if native:
        run("nft", ["-f", "-"], native)
    return [problem for sample in samples for problem in _tried(sample, macs)]


def _network(samples: Iterable[Sample], addresses: Mapping[str, str]) -> dict[str, bytes]:
    """Make interfaces, each with a peer that takes its place in the cable: named _peer. Gives their
    Ethernet addresses."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - large, and used once

    for setting in ("ip_forward", "ip_nonlocal_bind", "conf/default/accept_local"):
        Path("/proc/sys/net/ipv4", setting).write_text("1", encoding="ascii")
    for each in ("all", "default"):
        Path(f"/proc/sys/net/ipv4/conf/{each}/rp_filter").write_text("0", encoding="ascii")
    macs = {}
    with IPRoute() as netlink:
        index = {"lo": 1}
        netlink.link("set", index=1, state="up")
        for name in {name for sample in samples for name in (sample.enters, sample.leaves)}:
            netlink.link("add", ifname=name, kind="veth", peer={"ifname": _peer(name)})
            for each in (name, _peer(name)):
                (number,) = netlink.link_lookup(ifname=each)
                netlink.link(
                    "set", index=number, flags=_UP | _NOARP, change=_UP | _NOARP | _MULTICAST
                )
                index[each] = number
            (link,) = netlink.get_links(index[name])
            macs[name] = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        for address, holder in addresses.items():
            if holder != "lo" or not address.startswith("127."):  # which lo has by itself
                netlink.addr("add", index=index.get(holder, 1), address=address, prefixlen=32)
        for sample in samples:
            to = socket.inet_ntoa(sample.packet[16:20])
            if sample.hook is not Hook.INPUT and to not in addresses:
                netlink.route("replace", dst=f"{to}/32", oif=index[sample.leaves], scope="link")
    return macs


def _peer(name: str) -> str:
    return f"~{name}"[:15]


def _tried(sample: Sample, macs: Mapping[str, bytes]) -> list[Problem]:
    before = _counts()
    with _exit(sample) as out:
        if sample.hook is not Hook.OUTPUT:
            sent = _sent_in(sample, macs[sample.enters])
        else:
            sent = _sent_from_here(sample)
        came = _coming_out(out, sample.packet) if sent else None
    if came is None:
        return [_problem(sample, "would be dropped", before, "DROP|REJECT")]
    if came[1] >> 2 != sample.packet[1] >> 2:
        change = f"DSCP {sample.packet[1] >> 2} would become {came[1] >> 2}"
        return [_problem(sample, change, before, "DSCP|TOS")]
    return []


def _exit(sample: Sample) -> socket.socket:
    """A socket that gets what passes, from its IP header on."""
    if sample.hook is Hook.INPUT:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, sample.packet[9])
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV4_TYPE))
    tap.bind((_peer(sample.leaves), _IPV4_TYPE))
    return tap


def _sent_from_here(sample: Sample) -> bool:
    """Whether the kernel took it; what a rule drops it refuses."""
    with closing(RawSockets()) as raw:
        try:
            raw.send(sample.mark, sample.packet)
        except PermissionError:
            return False
    return True


def _sent_in(sample: Sample, mac: bytes) -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as cable:
        cable.bind((_peer(sample.enters), 0))
        cable.send(mac + bytes(6) + _IPV4_TYPE.to_bytes(2, "big") + sample.packet)
    return True


def _coming_out(out: socket.socket, sent: bytes) -> bytes | None:
    """The packet that has the addresses, protocol and first four bytes of what was sent."""
    deadline = time.monotonic() + WAIT
    while (left := deadline - time.monotonic()) > 0 and readable(out, left):
        packet = out.recv(65535)
        if packet[9:10] + packet[12:24] == sent[9:10] + sent[12:24]:
            return packet
    return None


# --- who it was ---


def _counts() -> dict[tuple[str, str], int]:
    """Packets that each rule has matched, by (table, rule)."""
    found, table = {}, ""
    for line in run("iptables-save", ["-c"]).splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif counted := re.match(r"\[(\d+):\d+\] (-A .*)", line):
            found[table, counted[2]] = int(counted[1])
        elif line.startswith(":"):
            found[table, line.split(" [")[0]] = 0
    return found


def _problem(
    sample: Sample, fate: str, before: dict[tuple[str, str], int], targets: str
) -> Problem:
    """Name the rule that matched and has one of the ``targets``, or the policy."""
    after = _counts()
    elsewhere = {chain for chains in CHAINS.values() for chain in chains} - {*CHAINS[sample.hook]}
    guilty = [
        (table, rule)
        for (table, rule), count in after.items()
        if count > before.get((table, rule), 0)
        and re.search(f"-j ({targets})\\b", rule)
        and rule.split()[1] not in elsewhere
    ]
    policies = [
        (table, f"policy DROP of {sample.hook}")
        for (table, rule) in after
        if rule == f":{sample.hook} DROP"
    ]
    what = f"{sample.what} ({sample.hook}): {fate}"
    if not guilty and not policies:
        where = "a table of nftables' own"
        mend = f"nft list ruleset: accept there what iptables would call {sample.match}"
        return Problem(f"{what}, by {where}", mend)
    table, culprit = (guilty + policies)[0]
    chain = culprit.split()[1]
    where = chain if chain in CHAINS[sample.hook] else sample.hook
    mend = f"iptables -t {table} -I {where} 1 {sample.match} -j ACCEPT"
    return Problem(f"{what}: '{culprit}' in {table}", mend)
