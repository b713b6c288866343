"""Reads a capture and tells each connection through the VIP in this project's words.

Which address is the VIP or a bridge comes from the configuration; a backend is known by meeting a
client's address and port on the other side of a bridge. A capture shows only what passed its host:
on the balancer there are no responses, on a client no handoffs.

Importing this module loads scapy, which takes a good part of a second.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from scapy.packet import Packet

from balancer.core.config import Config, Service
from balancer.program.connection import (
    Flow,
    client_syn,
    confirmed,
    cookie_words,
    guess,
    request_words,
    summary,
    tally,
)
from common.core import handoff
from common.core.segment import ACK, MASK, SYN
from common.program.decoding.capture import Address, DecodeError, Seen, packets, tcp_fields
from common.program.decoding.dissector import HandoffOption
from common.program.decoding.wording import (
    answer_words,
    at,
    handoff_option,
    offer_words,
    plural,
    tcp_words,
)

__all__ = ["MAX_PACKETS", "DecodeError", "Story", "decode"]

MAX_PACKETS = 200_000
"""TCP packets kept for output, some 200 bytes of text each; the reading stops there."""

Echo = Callable[[str], object]


def decode(file: str, config: Config, echo: Echo, max_packets: int = MAX_PACKETS) -> None:
    """Print the connections in the pcap or pcapng `file`, one after the other.

    Raises DecodeError if the file cannot be read or is no capture. A capture that turns out damaged
    further on is printed up to there, and the last line says so.
    """
    story = Story(config)
    notes: list[str] = []
    for packet in packets(file, notes):
        story.take(packet)
        if story.packets >= max_packets:
            notes.append(f"stopped after {max_packets} TCP packets; filter the capture for more")
            break
    for line in story.tell():
        echo(line)
    for note in notes:
        echo(note)


class Story:
    """Collects packets into flows; `tell` gives the text."""

    def __init__(self, config: Config) -> None:
        self.packets = 0
        self._start: float | None = None
        self._skipped: Counter[str] = Counter()
        tcp = [service for service in config.services if service.protocol == "tcp"]
        self._services = {(service.vip, service.port): service for service in tcp}
        self._by_dscp = {(service.dscp, service.port): service for service in tcp}
        self._vips = {service.vip for service in config.services}
        self._bridges = {
            b.bridge for service in config.services for b in config.backends_of(service)
        }
        self._flows: dict[tuple[Address, Address], Flow] = {}
        self._latest: dict[Address, Flow] = {}

    def take(self, packet: Packet) -> None:
        """Add one packet of the capture."""
        if self._start is None:
            self._start = float(packet.time)
        seen = tcp_fields(packet, self._start)
        if isinstance(seen, str):
            self._skipped[seen] += 1
            return
        self.packets += 1
        option, fault = handoff_option(seen.options)
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
            yield f"  {summary(flow)}"
            yield ""
        skipped = ", ".join(f"{count} {what}" for what, count in self._skipped.most_common())
        total = f"{plural(len(self._flows), 'flow')}, {plural(self.packets, 'TCP packet')}"
        yield total + (f"; not shown: {skipped}" if skipped else "")

    def _flow(self, client: Address, vip: Address) -> Flow:
        key = (client, vip)
        if key not in self._flows:
            tls = vip in self._services and self._services[vip].inspect == "tls"
            self._flows[key] = Flow(f"flow client {at(client)} -> VIP {at(vip)}", tls)
        self._latest[client] = self._flows[key]
        return self._flows[key]

    def _to_vip(self, seen: Seen, option: HandoffOption | None, fault: str) -> None:
        flow = self._flow(seen.src, seen.dst)
        if option is not None and option.to_balancer:
            way = f"bridge -> balancer (client {at(seen.src)} -> VIP {at(seen.dst)})"
            flow.counts[option.word.lower()] += 1
            flow.add(seen, way, answer_words(seen, flow.c, option))
            return
        way = f"client {at(seen.src)} -> VIP {at(seen.dst)}"
        if seen.flags & (SYN | ACK) == SYN:
            note = client_syn(seen, flow)
            flow.add(seen, way, f"SYN  c={seen.seq} {offer_words(seen.options)}{note}{fault}")
            return
        tally(flow, seen, "request", "client")
        note = confirmed(seen, flow)
        guess(flow, seen, "c", "b")
        words = tcp_words(seen, flow.c, flow.b) + _said(self._services[seen.dst], seen, flow)
        flow.add(seen, way, words + note + fault)

    def _from_vip(self, seen: Seen, fault: str) -> None:
        flow = self._flow(seen.dst, seen.src)
        way = f"VIP {at(seen.src)} -> client {at(seen.dst)}"
        if seen.flags & SYN and seen.flags & ACK:
            flow.learn("c", seen.ack - 1)
            if (seen.ack - 1) & MASK != flow.offered:
                flow.learn("b", seen.seq, certain=True)
            unread = self._services[seen.src].inspect == "none"
            whose = "the server's own" if unread else cookie_words(seen.seq)
            words = f"SYN-ACK  b={seen.seq} {whose} {offer_words(seen.options)}"
        elif seen.flags & SYN:
            words = "SYN alone: asks the client for a challenge ACK"
        else:
            tally(flow, seen, "response", "VIP")
            guess(flow, seen, "b", "c")
            what = "response src=VIP  " if seen.length else ""
            words = what + tcp_words(seen, flow.b, flow.c)
        flow.add(seen, way, words + fault)

    def _to_bridge(
        self, seen: Seen, service: Service, option: HandoffOption | None, fault: str
    ) -> None:
        flow = self._flow(seen.src, (service.vip, service.port))
        note = confirmed(seen, flow)
        bridge = seen.dst[0]
        way = f"balancer -> bridge {bridge} (client {at(seen.src)})"
        if option is None:
            flow.counts["steered"] += 1
            guess(flow, seen, "c", "b")
            head = f"steered dscp={seen.dscp}"
        else:
            head = f"{option.mysummary()} dscp={seen.dscp}"
            if option.kind in (handoff.Kind.HANDOFF, handoff.Kind.HANDOFF_CONFIRM):
                flow.bridges[bridge] = flow.bridges.get(bridge, 0) + 1
                flow.learn("c", seen.seq - 1, certain=True)
                flow.learn("b", seen.ack - 1, certain=True)
        words = f"{head}  {tcp_words(seen, flow.c, flow.b)}{_said(service, seen, flow)}"
        flow.add(seen, way, words + note + fault)

    def _to_backend(self, seen: Seen, flow: Flow) -> None:
        way = f"bridge as client {at(seen.src)} -> backend {at(seen.dst)}"
        if seen.flags & (SYN | ACK) == SYN:
            same = " (the client's own)" if seen.seq == flow.c else ""
            flow.add(seen, way, f"SYN  c={seen.seq}{same} {offer_words(seen.options)}")
            return
        flow.learn("r", seen.ack - 1)
        flow.add(seen, way, tcp_words(seen, flow.c, flow.r))

    def _from_backend(self, seen: Seen, flow: Flow) -> None:
        way = f"backend {at(seen.src)} -> client {at(seen.dst)} (before translation)"
        if seen.flags & SYN:
            flow.restart_backend(seen.seq)
            flow.add(seen, way, f"SYN-ACK  r={seen.seq} {offer_words(seen.options)}")
            return
        flow.learn("r", seen.seq - 1)
        flow.add(seen, way, tcp_words(seen, flow.r, flow.c))

    def _other(self, seen: Seen, option: HandoffOption | None, fault: str) -> None:
        key = (min(seen.src, seen.dst), max(seen.src, seen.dst))
        if key not in self._flows:
            self._flows[key] = Flow(f"other {self._role(seen.src)} <-> {self._role(seen.dst)}")
        words = f"dscp={seen.dscp} names no service  " if seen.dscp else ""
        words += f"{option.mysummary()}  " if option is not None else ""
        way = f"{self._role(seen.src)} -> {self._role(seen.dst)}"
        self._flows[key].add(seen, way, words + tcp_words(seen, None, None) + fault)

    def _role(self, address: Address) -> str:
        role = "VIP " if address[0] in self._vips else "bridge " * (address[0] in self._bridges)
        return role + at(address)


def _said(service: Service, seen: Seen, flow: Flow) -> str:
    """What a client asks in its first bytes, where the balancer reads that."""
    return "" if service.inspect == "none" else request_words(seen, flow)
