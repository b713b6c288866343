"""Reads a capture and tells each connection through the VIP in this project's words.

Which address is the VIP or a bridge comes from the configuration; a backend is known by meeting a
client's address and port on the other side of a bridge. A capture shows only what passed its host:
on the balancer there are no responses, on a client no handoffs.

Importing this module loads scapy, which takes a good part of a second.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scapy.error import Scapy_Exception
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux  # noqa: F401  # captures of interface "any"
from scapy.packet import Packet
from scapy.utils import PcapReader

from balancer.core.config import Config, Service
from balancer.core.cookie import MSS_STEPS
from balancer.core.http_request import Bad, Request, inspect
from balancer.program.dissector import HandoffOption, scale_text
from common.core import handoff, tcp_options
from common.core.errors import MalformedError
from common.core.segment import ACK, FIN, MASK, PSH, RST, SYN, URG

MAX_PACKETS = 200_000
"""TCP packets kept for output, some 200 bytes of text each; the reading stops there."""

Echo = Callable[[str], object]
Address = tuple[str, int]


class DecodeError(Exception):
    """The file cannot be read as a capture; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One TCP packet of a capture. `length` is the payload's by the IP header: of a packet cut
    short by the capture, `payload` holds less. `time` in seconds since the first packet."""

    time: float
    src: Address
    dst: Address
    dscp: int
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes
    length: int
    payload: bytes


@dataclass(slots=True)
class Flow:
    """What is known of one connection, and its lines.

    `c`, `b`, `r` are the initial sequence numbers of client, balancer and backend. Where the
    capture lacks a SYN, they are taken from the first packet seen, and named in `guessed`.
    `offered` is the c of a later SYN, which anyone can send: it holds once it has been answered.
    """

    title: str
    offered: int | None = None
    c: int | None = None
    b: int | None = None
    r: int | None = None
    guessed: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bridges: dict[str, int] = field(default_factory=dict)
    request: str = ""
    first: float = 0.0
    last: float = 0.0

    def learn(self, name: str, isn: int, *, certain: bool = False) -> None:
        """Take `isn` for c, b or r unless a better one is known."""
        if getattr(self, name) is None or (certain and name in self.guessed):
            setattr(self, name, isn & MASK)
            (self.guessed.discard if certain else self.guessed.add)(name)

    def restart(self, c: int, b: int) -> None:
        """A new connection of the same addresses: nothing of the one before holds."""
        self.c, self.b, self.r, self.offered = c, b & MASK, None, None
        self.guessed.clear()
        self.request = ""

    def restart_backend(self, r: int) -> None:
        """A SYN-ACK of the backend, perhaps of another one than before."""
        self.r = r
        self.guessed.discard("r")

    def add(self, seen: Seen, way: str, words: str) -> None:
        if not self.lines:
            self.first = seen.time
        self.last = seen.time
        self.lines.append(f"{seen.time:12.6f}  {way}  {words}")


def decode(file: str, config: Config, echo: Echo, max_packets: int = MAX_PACKETS) -> None:
    """Print the connections in the pcap or pcapng `file`, one after the other.

    Raises DecodeError if the file cannot be read or is no capture. A capture that turns out damaged
    further on is printed up to there, and the last line says so.
    """
    story = Story(config)
    notes: list[str] = []
    for packet in _packets(file, notes):
        story.take(packet)
        if story.packets >= max_packets:
            notes.append(f"stopped after {max_packets} TCP packets; filter the capture for more")
            break
    for line in story.tell():
        echo(line)
    for note in notes:
        echo(note)


# --- reading --------------------------------------------------------------------------------------


def _packets(file: str, notes: list[str]) -> Iterator[Packet]:
    """The packets of a file; damage behind the first packet ends them with a note."""
    count = 0
    try:
        with PcapReader(file) as reader:
            for packet in reader:
                count += 1
                yield packet
    except OSError as error:
        raise DecodeError(f"{file}: {error.strerror or error}") from error
    except (Scapy_Exception, EOFError, ValueError, struct.error, zlib.error) as error:
        if not count:
            raise DecodeError(f"{file}: not a pcap or pcapng capture ({error})") from error
        notes.append(f"the capture is damaged after packet {count}: {error}")


def _seen(packet: Packet, start: float) -> Seen | str:
    """A packet's TCP fields, or in a word what it is instead."""
    if IP not in packet:
        found = [name for kind, name in ((ARP, "ARP"), (IPv6, "IPv6")) if kind in packet]
        return found[0] if found else "not IPv4"
    ip = packet[IP]
    if ip.frag or ip.flags.MF:
        return "fragment"
    if ip.proto != 6:
        return {1: "ICMP", 17: "UDP"}.get(ip.proto, f"IP protocol {ip.proto}")
    if not isinstance(ip.payload, TCP) or not ip.ihl or ip.ihl < 5:
        return "truncated TCP"
    tcp = ip.payload
    head = (tcp.dataofs or 0) * 4
    length = (ip.len or len(ip.original)) - ip.ihl * 4 - head  # 0 before segmentation (BIG TCP)
    if head < 20 or length < 0 or len(tcp.original) < head:
        return "truncated TCP"
    return Seen(
        time=float(packet.time) - start,
        src=(ip.src, tcp.sport),
        dst=(ip.dst, tcp.dport),
        dscp=ip.tos >> 2,
        seq=tcp.seq,
        ack=tcp.ack,
        flags=int(tcp.flags),
        window=tcp.window,
        options=tcp.original[20:head],
        length=length,
        payload=tcp.original[head : head + length],
    )


# --- the connections ------------------------------------------------------------------------------


class Story:
    """Collects packets into flows; `tell` gives the text."""

    def __init__(self, config: Config) -> None:
        self.packets = 0
        self._start: float | None = None
        self._skipped: Counter[str] = Counter()
        self._services = {(service.vip, service.port): service for service in config.services}
        self._by_dscp = {(service.dscp, service.port): service for service in config.services}
        self._bridges = {
            backend.bridge for service in config.services for backend in service.backends
        }
        self._flows: dict[tuple[Address, Address], Flow] = {}
        self._latest: dict[Address, Flow] = {}

    def take(self, packet: Packet) -> None:
        """Add one packet of the capture."""
        if self._start is None:
            self._start = float(packet.time)
        seen = _seen(packet, self._start)
        if isinstance(seen, str):
            self._skipped[seen] += 1
            return
        self.packets += 1
        option, fault = _handoff_option(seen.options)
        if seen.dst in self._services:
            self._to_vip(seen, option, fault)
        elif seen.src in self._services:
            self._from_vip(seen, fault)
        elif (seen.dscp, seen.dst[1]) in self._by_dscp and (
            seen.dst[0] in self._bridges or option is not None or seen.src in self._latest
        ):
            self._to_bridge(seen, self._by_dscp[seen.dscp, seen.dst[1]], option, fault)
        elif seen.src in self._latest:
            self._to_backend(seen, self._latest[seen.src])
        elif seen.dst in self._latest:
            self._from_backend(seen, self._latest[seen.dst])
        else:
            self._other(seen, option, fault)

    def tell(self) -> Iterator[str]:
        """The text, line by line: every flow, then what was not shown."""
        for flow in self._flows.values():
            yield flow.title
            yield from flow.lines
            yield f"  {_summary(flow)}"
            yield ""
        skipped = ", ".join(f"{count} {what}" for what, count in self._skipped.most_common())
        total = f"{_plural(len(self._flows), 'flow')}, {_plural(self.packets, 'TCP packet')}"
        yield total + (f"; not shown: {skipped}" if skipped else "")

    def _flow(self, client: Address, vip: Address) -> Flow:
        key = (client, vip)
        if key not in self._flows:
            self._flows[key] = Flow(f"flow client {_at(client)} -> VIP {_at(vip)}")
        self._latest[client] = self._flows[key]
        return self._flows[key]

    def _to_vip(self, seen: Seen, option: HandoffOption | None, fault: str) -> None:
        flow = self._flow(seen.src, seen.dst)
        if option is not None and option.to_balancer:
            way = f"bridge -> balancer (client {_at(seen.src)} -> VIP {_at(seen.dst)})"
            flow.counts[option.word.lower()] += 1
            flow.add(seen, way, _answer_words(seen, flow, option))
            return
        way = f"client {_at(seen.src)} -> VIP {_at(seen.dst)}"
        if seen.flags & (SYN | ACK) == SYN:
            note = _client_syn(seen, flow)
            flow.add(seen, way, f"SYN  c={seen.seq} {_offer_words(seen.options)}{note}{fault}")
            return
        _count(flow, seen, "request", "client")
        note = _confirmed(seen, flow)
        _guess(flow, seen, "c", "b")
        words = _tcp_words(seen, flow.c, flow.b) + _request_words(seen, flow)
        flow.add(seen, way, words + note + fault)

    def _from_vip(self, seen: Seen, fault: str) -> None:
        flow = self._flow(seen.dst, seen.src)
        way = f"VIP {_at(seen.src)} -> client {_at(seen.dst)}"
        if seen.flags & SYN and seen.flags & ACK:
            flow.learn("c", seen.ack - 1)
            if (seen.ack - 1) & MASK != flow.offered:
                flow.learn("b", seen.seq, certain=True)
            words = f"SYN-ACK  b={seen.seq} {_cookie_words(seen.seq)} {_offer_words(seen.options)}"
        elif seen.flags & SYN:
            words = "SYN alone: asks the client for a challenge ACK"
        else:
            _count(flow, seen, "response", "VIP")
            _guess(flow, seen, "b", "c")
            what = "response src=VIP  " if seen.length else ""
            words = what + _tcp_words(seen, flow.b, flow.c)
        flow.add(seen, way, words + fault)

    def _to_bridge(
        self, seen: Seen, service: Service, option: HandoffOption | None, fault: str
    ) -> None:
        flow = self._flow(seen.src, (service.vip, service.port))
        note = _confirmed(seen, flow)
        bridge = seen.dst[0]
        way = f"balancer -> bridge {bridge} (client {_at(seen.src)})"
        if option is None:
            flow.counts["steered"] += 1
            _guess(flow, seen, "c", "b")
            head = f"steered dscp={seen.dscp}"
        else:
            head = f"{option.mysummary()} dscp={seen.dscp}"
            if option.kind in (handoff.Kind.HANDOFF, handoff.Kind.HANDOFF_CONFIRM):
                flow.bridges[bridge] = flow.bridges.get(bridge, 0) + 1
                flow.learn("c", seen.seq - 1, certain=True)
                flow.learn("b", seen.ack - 1, certain=True)
        words = f"{head}  {_tcp_words(seen, flow.c, flow.b)}{_request_words(seen, flow)}"
        flow.add(seen, way, words + note + fault)

    def _to_backend(self, seen: Seen, flow: Flow) -> None:
        way = f"bridge as client {_at(seen.src)} -> backend {_at(seen.dst)}"
        if seen.flags & (SYN | ACK) == SYN:
            same = " (the client's own)" if seen.seq == flow.c else ""
            flow.add(seen, way, f"SYN  c={seen.seq}{same} {_offer_words(seen.options)}")
            return
        flow.learn("r", seen.ack - 1)
        flow.add(seen, way, _tcp_words(seen, flow.c, flow.r))

    def _from_backend(self, seen: Seen, flow: Flow) -> None:
        way = f"backend {_at(seen.src)} -> client {_at(seen.dst)} (before translation)"
        if seen.flags & SYN:
            flow.restart_backend(seen.seq)
            flow.add(seen, way, f"SYN-ACK  r={seen.seq} {_offer_words(seen.options)}")
            return
        flow.learn("r", seen.seq - 1)
        flow.add(seen, way, _tcp_words(seen, flow.r, flow.c))

    def _other(self, seen: Seen, option: HandoffOption | None, fault: str) -> None:
        key = (min(seen.src, seen.dst), max(seen.src, seen.dst))
        if key not in self._flows:
            self._flows[key] = Flow(f"other {self._role(seen.src)} <-> {self._role(seen.dst)}")
        words = f"dscp={seen.dscp} names no service  " if seen.dscp else ""
        words += f"{option.mysummary()}  " if option is not None else ""
        way = f"{self._role(seen.src)} -> {self._role(seen.dst)}"
        self._flows[key].add(seen, way, words + _tcp_words(seen, None, None) + fault)

    def _role(self, address: Address) -> str:
        vips = {vip for vip, _ in self._services}
        role = "VIP " if address[0] in vips else "bridge " * (address[0] in self._bridges)
        return role + _at(address)


# --- words ----------------------------------------------------------------------------------------


def _at(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def _handoff_option(options: bytes) -> tuple[HandoffOption | None, str]:
    """Our option, if there is one, and what is wrong with the options ("" if nothing)."""
    try:
        raw = handoff.find(options)
    except MalformedError as error:
        return None, f"  [{error.reason}]"
    return (None if raw is None else HandoffOption(raw)), ""


def _client_syn(seen: Seen, flow: Flow) -> str:
    """Note the c of a client's SYN; in words, if it is not the first."""
    if flow.c is None:
        flow.c = seen.seq
        return ""
    if flow.c == seen.seq:
        return "  (again)"
    flow.offered = seen.seq
    return "  (another connection's)"


def _confirmed(seen: Seen, flow: Flow) -> str:
    """In words, if this packet goes on from a later SYN, which makes a new connection of it."""
    if flow.offered is None or not seen.flags & ACK or seen.seq != (flow.offered + 1) & MASK:
        return ""
    flow.restart(flow.offered, seen.ack - 1)
    return "  (new incarnation)"


def _guess(flow: Flow, seen: Seen, sender: str, receiver: str) -> None:
    """Without a SYN in the capture, count from the first packet."""
    flow.learn(sender, seen.seq - 1)
    if seen.flags & ACK:
        flow.learn(receiver, seen.ack - 1)


def _count(flow: Flow, seen: Seen, what: str, sender: str) -> None:
    """For the summary: payload, retransmissions included, and how the connection ended."""
    flow.counts[f"{what} bytes"] += seen.length
    for flag, name in ((FIN, "FIN"), (RST, "RST")):
        if seen.flags & flag:
            flow.counts[f"{name} from {sender}"] += 1


def _offer_words(options: bytes) -> str:
    """What a SYN or SYN-ACK offers."""
    try:
        offer = tcp_options.offer(options)
    except MalformedError as error:
        return f"[{error.reason}]"
    words = [f"mss={offer.mss}", f"wscale={scale_text(offer.scale)}"]
    words.append("sack" if offer.sack else "no-sack")
    words.append(
        "no-ts" if offer.timestamps is None else "ts={} tsecr={}".format(*offer.timestamps)
    )
    return " ".join(words + ["md5"] * offer.signed)


def _cookie_words(b: int) -> str:
    """The low 8 bits of a SYN cookie (balancer.core.cookie has the layout)."""
    index = b >> 5 & 3
    return (
        f"cookie(mss index {index} = {MSS_STEPS[index]}, {'sack' if b & 16 else 'no-sack'}, "
        f"client wscale {scale_text(b & 15)}, parity {b >> 7 & 1})"
    )


def _answer_words(seen: Seen, flow: Flow, option: HandoffOption) -> str:
    meaning = {
        handoff.Kind.ACCEPTED: "next byte",
        handoff.Kind.REFUSED: "the held segment comes back,",
    }.get(option.kind, "")
    relative = _relative(seen.seq, flow.c)
    return f"{option.mysummary()}  {meaning} seq={relative}{_length(seen)}"


def _tcp_words(seen: Seen, seq_base: int | None, ack_base: int | None) -> str:
    """Flags, sequence and acknowledgment numbers less their bases (absolute without), window."""
    names = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG"))
    words = [",".join(name for flag, name in names if seen.flags & flag) or "no flags"]
    words.append(f"seq={_relative(seen.seq, seq_base)}{_length(seen)}")
    if seen.flags & ACK:
        words.append(f"ack={_relative(seen.ack, ack_base)}")
    words.append(f"win={seen.window}")
    return " ".join(words)


def _length(seen: Seen) -> str:
    return f" ({_plural(seen.length, 'byte')})" if seen.length else ""


def _relative(number: int, base: int | None) -> int:
    if base is None:
        return number
    distance = (number - base) & MASK
    return distance if distance < 2**31 else distance - 2**32


def _request_words(seen: Seen, flow: Flow) -> str:
    """The request in a client's first bytes; kept for the summary."""
    if not seen.payload or flow.c is None or _relative(seen.seq, flow.c) != 1:
        return ""
    answer = inspect(seen.payload, len(seen.payload) + 1)
    if isinstance(answer, Request):
        flow.request = f"{answer.method.decode('ascii')} {answer.path.decode('ascii')}"
    elif isinstance(answer, Bad):
        flow.request = f"no HTTP ({answer.reason})"
    else:
        return "  incomplete request line"
    return f"  {flow.request}"


def _summary(flow: Flow) -> str:
    """The last line of a flow."""
    words = [f"{_plural(len(flow.lines), 'packet')} in {flow.last - flow.first:.6f} s"]
    if flow.request:
        words.append(f"request {flow.request}")
    for bridge, count in flow.bridges.items():
        words.append(f"handed to {bridge}" + (f" ({count} times)" if count > 1 else ""))
    words += [f"{count} {what}" for what, count in flow.counts.items() if count]
    words += [_isn_words(flow)] * (flow.c is not None)
    return "summary: " + "; ".join(words)


def _isn_words(flow: Flow) -> str:
    known = {name: getattr(flow, name) for name in "cbr" if getattr(flow, name) is not None}
    words = [
        f"{name}={isn}" + " (first seen)" * (name in flow.guessed) for name, isn in known.items()
    ]
    if flow.b is not None and flow.r is not None:
        words.append(f"b-r={(flow.b - flow.r) & MASK}")
    return " ".join(words)
