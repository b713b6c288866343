"""What a host needs before a program can start: each check finds what is wrong and how to mend it.

Everything is read in the network namespace of this process: /proc/sys/net, /proc/self/net, netlink.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.adapters import keyfile, routes
from common.adapters.alone import runs
from common.adapters.firewall import Firewall, FirewallError, NotInstalled

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # bits, from linux/capability.h
QUEUES = "/proc/self/net/netfilter/nfnetlink_queue"
LARGEST_MTU = 4000  # bytes; NetfilterQueue hands over 4016 of a packet and cuts off the rest
NETLINK_NETFILTER = "12"  # from linux/netlink.h, as /proc/net/netlink writes it
STRICT = 1  # rp_filter: the route back must leave by the interface the packet came in on


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the host; `mend` is the command that mends it, or, without one, what to do.

    A program does not start with a fatal problem; the others it reports.
    """

    what: str
    mend: str
    fatal: bool = True


def privileges(program: str) -> list[Problem]:
    """The rights to change the firewall and to send raw packets."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    (held,) = (int(line.split()[1], 16) for line in status.splitlines() if line[:7] == "CapEff:")
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if not lacking:
        return []
    what = f"must run as root: the privileges {' and '.join(lacking)} are missing"
    return [Problem(what, f"sudo {program}")]


def key(path: str, program: str) -> list[Problem]:
    """The key file: there, a secret, and with a key in it."""
    try:
        keyfile.load(path, program)
    except keyfile.KeyFileError as error:
        return [Problem(str(error), error.cure)]
    return []


# --- interfaces, addresses, routes ---


def interface(name: str | None) -> list[Problem]:
    """A configured interface: there, and up."""
    if name is None:
        return []
    there = routes.interfaces()
    if name not in there:
        names = ", ".join(sorted(there))
        return [Problem(f"there is no interface {name}", f"name one of: {names} (--interface)")]
    if not there[name].up:
        return [Problem(f"interface {name} is down", f"ip link set dev {name} up")]
    return []


def address(what: str, wanted: str, interface: str | None) -> list[Problem]:
    """An address that clients or balancers send to (`what` names it). One that no interface holds
    may be routed here all the same, which a configured interface says.
    """
    if wanted in routes.local_addresses():
        return []
    mend = f"ip address add {wanted}/32 dev {interface or likely_interface()}"
    return [Problem(f"no interface holds the {what} {wanted}", mend, fatal=interface is None)]


def local_routes(addresses: Iterable[str]) -> list[Problem]:
    """Own addresses that a server on this host sees as its clients': Linux keeps no copy of a local
    route that is on another interface than lo, and so does not renew what a connection has of it
    when it learns of a path's MTU (__mkroute_output in net/ipv4/route.c)."""
    found = {address: routes.local_route(address) for address in addresses}
    return [
        Problem(
            f"the local route of {address} is on {name}: a server on this host would learn of a "
            "narrow path to a client seconds late",
            f"ip route replace local {address} dev lo table local",
            fatal=False,
        )
        for address, name in found.items()
        if name not in (None, "lo")
    ]


def route(what: str, wanted: str) -> list[Problem]:
    """A way to a peer: how large its packets may be cannot be known without."""
    try:
        routes.route_to(wanted)
    except routes.RouteError as error:
        mend = f"ip route add {wanted}/32 dev {likely_interface()}"
        return [Problem(f"{what} {wanted}: {error}", mend)]
    return []


def involved(interface: str | None, own: Iterable[str], peers: Iterable[str]) -> list[str]:
    """Interfaces that packets come in or go out by: the configured one, those that hold our own
    addresses (of one that is missing, the interface proposed for it), those that lead to our peers;
    not the loopback, nor what does not exist.
    """
    holders = routes.local_addresses()
    proposed = interface or likely_interface()
    names = [interface, *(holders.get(address, proposed) for address in own)]
    for peer in peers:
        try:
            names.append(routes.route_to(peer).interface)
        except routes.RouteError:
            continue  # `route` reports it
    there = routes.interfaces()
    return [name for name in dict.fromkeys(names) if name in there and name != "lo"]


def mtu(names: Iterable[str]) -> list[Problem]:
    """Packets that fit into what a netfilter queue hands over."""
    return [
        Problem(
            f"interface {name} has MTU {size}, and a queued packet is cut at {LARGEST_MTU} bytes",
            f"ip link set dev {name} mtu 1500",
        )
        for name in names
        if (size := routes.interface_mtu(name)) > LARGEST_MTU
    ]


def congestion() -> list[Problem]:
    """BBR towards clients: it would take the first round trip, to the bridge, for the path's."""
    return [
        Problem(
            f"route '{entry.words}' uses BBR, slow where a handshake is not held (hold_handshake)",
            f"ip route change {entry.words} congctl cubic rto_min 1s",
            fatal=False,
        )
        for entry in _bbr_routes()
        if _is_near(entry)
    ]


def uses_bbr() -> bool:
    """Whether any connection with another host would use BBR: by default, or as its route says."""
    return bool(_bbr_routes())


def _bbr_routes() -> list[routes.TableEntry]:
    usual = sysctl("net.ipv4.tcp_congestion_control")
    return [
        entry
        for entry in routes.main_table()
        if (entry.congestion or usual) == "bbr" and entry.interface != "lo"
    ]


def _is_near(entry: routes.TableEntry) -> bool:
    """A default route or a subnet of our own: a router's whole table would say the same again."""
    return entry.words.startswith("default ") or " via " not in entry.words


def likely_interface() -> str:
    """An interface for a command that has to name one."""
    in_use = set(routes.local_addresses().values())
    found = [link for link in routes.interfaces().values() if link.name != "lo"]
    found.sort(key=lambda link: (link.name not in in_use, not link.up))
    return found[0].name if found else "lo"


# --- kernel settings ---


def sysctl(name: str) -> str | None:
    """The value of a kernel setting, by its name in the sysctl command; None if there is none."""
    path = name.translate(str.maketrans("./", "/."))
    try:
        return Path("/proc/sys", path).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def forwarding(names: Iterable[str]) -> list[Problem]:
    """Packets may be sent on, on the whole host and on what they come in by."""
    if sysctl("net.ipv4.ip_forward") == "0":
        what = "net.ipv4.ip_forward is 0: no packet is sent on to another host"
        return [Problem(what, "sysctl -w net.ipv4.ip_forward=1")]
    return [
        Problem(f"{setting} is 0: nothing that comes in there is sent on", f"sysctl -w {setting}=1")
        for setting in (_setting(name, "forwarding") for name in names)
        if sysctl(setting) == "0"
    ]


def reverse_path(names: Iterable[str]) -> list[Problem]:
    """No strict reverse-path filter: it drops what does not come in where the answer goes out."""
    for_all = _number("net.ipv4.conf.all.rp_filter")
    return [
        Problem(
            f"rp_filter is strict on {name}: packets of clients routed elsewhere are dropped there",
            f"sysctl -w {_setting(name, 'rp_filter')}=2",
            fatal=False,
        )
        for name in names
        if max(for_all, _number(_setting(name, "rp_filter"))) == STRICT
    ]


def redirects(names: Iterable[str]) -> list[Problem]:
    """No ICMP redirects: they would tell clients of the bridges behind the VIP."""
    all_of_them = "net.ipv4.conf.all.send_redirects"
    settings = {name: _setting(name, "send_redirects") for name in names}
    on = [name for name, each in settings.items() if _number(all_of_them) or _number(each)]
    if not on:
        return []
    what = f"send_redirects is on for {', '.join(on)}: clients would be told of the bridges"
    mend = " ".join(f"{setting}=0" for setting in (all_of_them, *(settings[name] for name in on)))
    return [Problem(what, f"sysctl -w {mend}")]


def marked_sockets() -> list[Problem]:
    """A local server's packets carry the bridge's mark, by which they are known."""
    setting = "net.ipv4.tcp_fwmark_accept"
    if _number(setting) == 1:
        return []
    what = f"{setting} is not 1: the answers of a server on this host would not be recognised"
    return [Problem(what, f"sysctl -w {setting}=1")]


def reserved_ports(ranges: Iterable[tuple[int, int]]) -> list[Problem]:
    """Ranges of ports, each (first, last), that no other program's connections are given."""
    setting = "net.ipv4.ip_local_reserved_ports"
    present = sysctl(setting) or ""
    reserved = _ports(present)
    lacking = [f"{low}-{high}" for low, high in ranges if not reserved >= {*range(low, high + 1)}]
    if not lacking:
        return []
    value = ",".join(filter(None, [present, *lacking]))
    what = f"{setting} lacks {', '.join(lacking)}, the bridge's own source ports"
    return [Problem(what, f"sysctl -w {setting}={value}", fatal=False)]


def _ports(text: str) -> set[int]:
    """The ports of a list such as '80,20000-29999'."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return ports


def _setting(interface: str, name: str) -> str:
    """An interface's setting in the sysctl command's words: a dot in a name is a slash there."""
    return f"net.ipv4.conf.{interface.replace('.', '/')}.{name}"


def _number(name: str) -> int:
    return int(sysctl(name) or 0)


# --- netfilter ---


def firewall(prerouting: Sequence[str], output: Sequence[str]) -> list[Problem]:
    """The rules can be loaded: iptables is there, and the kernel has what they need."""
    try:
        Firewall("check", prerouting, output).probe()
    except NotInstalled as error:
        return [Problem(str(error), "apt-get install iptables")]
    except FirewallError as error:
        mend = "modprobe -a nfnetlink_queue xt_NFQUEUE xt_CT xt_dscp xt_mark"
        return [Problem(f"the firewall rules cannot be loaded: {error}", mend)]
    return []


def queue_library() -> list[Problem]:
    """Queues can be read: the module came with the programs, its library is Debian's."""
    try:
        import netfilterqueue  # noqa: F401, PLC0415 - only to see whether it can be had
    except ImportError as error:
        what = f"the library of netfilter's queues cannot be loaded: {error}"
        return [Problem(what, "apt-get install libnetfilter-queue1")]
    return []


def queue(number: int) -> list[Problem]:
    """The netfilter queue is free: two programs on one queue lose each other's packets."""
    for line in _lines(QUEUES):
        taken, port_id = line.split()[:2]
        if int(taken) == number:
            return [_taken(number, port_id)]
    return []


def losses() -> list[Problem]:
    """What the kernel drops, a queue being full, can be read, and so be counted."""
    try:
        Path(QUEUES).read_bytes()
    except FileNotFoundError:  # its module is loaded with the first queue
        return []
    except PermissionError:
        what = f"{QUEUES} cannot be read: packets that the kernel drops are not counted"
        return [Problem(what, f"chgrp {os.getegid()} {QUEUES} (as root)", fatal=False)]
    return []


def alone(program: str) -> list[Problem]:
    """None of its kind runs here: by whichever queue, it would lose its rules and connections."""
    process = runs(program)
    if process is None:
        return []
    return [Problem(f"{program} runs on this host already, process {process}", f"kill {process}")]


def _taken(number: int, port_id: str) -> Problem:
    for pid in _holders(port_id):
        name = "".join(_lines(f"/proc/{pid}/comm"))
        return Problem(f"queue {number} is in use by process {pid} ({name})", f"kill {pid}")
    other = "choose another number: key queue in the configuration"
    return Problem(f"queue {number} is in use by netlink port {port_id}", other)


def _holders(port_id: str) -> Iterator[int]:
    """Processes that have the netfilter socket with a netlink port open."""
    rows = (line.split() for line in _lines("/proc/self/net/netlink")[1:])
    inodes = {f"socket:[{r[9]}]" for r in rows if r[1:3] == [NETLINK_NETFILTER, port_id]}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(descriptor.readlink()) in inodes:
                yield int(descriptor.parts[2])
        except OSError:
            continue  # closed, or gone, meanwhile


def _lines(path: str) -> list[str]:
    """A file's lines; none where it is root's alone, or not there: a module not loaded, a process
    gone."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
