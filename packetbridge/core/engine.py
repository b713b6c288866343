"""The bridge: each packet from a balancer or a server in, a verdict out.

A verdict is the packet to let go on in place of the one that came (the same object: unchanged), or
None to drop it. Packets that the bridge sends of its own accord are collected in ``out``.

The way of a packet: a spliced flow's is found by its key and translated by the first lines of
``packet``; all others go to ``_slow``, which reads the segment whole and finds its place by where
it comes from, its flags and its flow's state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from common.core import handoff, icmp
from common.core.datagram import UDP
from common.core.errors import MalformedError
from common.core.keys import Keyring, Keys
from common.core.ledger import DROP, Ledger, Occurrence, Outcome
from common.core.segment import ACK, ICMP, MIN_PACKET, SYN, TCP, Segment
from packetbridge.core import answers, icmp_errors, splice
from packetbridge.core.adoption import Adoption
from packetbridge.core.config import Limits, Timeouts
from packetbridge.core.connector import Connector
from packetbridge.core.context import Context, Served
from packetbridge.core.datagrams import quotations
from packetbridge.core.datagrams.engine import Datagrams
from packetbridge.core.datagrams.mapping import Mapping
from packetbridge.core.datagrams.mappings import Mappings
from packetbridge.core.ends import Ends, end, kill
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import FastPath, NoFastPath
from packetbridge.core.flow import ANSWERED, IN_KERNEL, UNHEARD, Flow
from packetbridge.core.flow_table import FlowTable
from packetbridge.core.opener import Opener
from packetbridge.core.parting import Parting
from packetbridge.core.sources import Sources
from packetbridge.core.states import State
from packetbridge.core.story import End
from packetbridge.core.strangers import Strangers
from packetbridge.core.uninspected import Uninspected
from packetbridge.core.ways import Ways

FAREWELL_PART = 64  # flows ended in one go
# Seconds between two looks at what the kernel has seen end: at least, as much of it costs little
# more than some, and at most.
GATHERING, GATHERED = 0.01, 0.05


class Senseless(Outcome):
    """Why a packet was dropped that cannot be of any flow."""

    SYN = "syn_at_bridge"  # where connections begin with a handoff
    NO_ENTRY = "no_entry"  # no backend for that address, DSCP and port


class Killed(Occurrence):
    """Connections ended at the operator's word."""

    FLOWS = "flows_killed"


class Carried(Occurrence):
    """Of IP, in the packets that Python has translated."""

    UP = "spliced_up_bytes"
    DOWN = "spliced_down_bytes"


class Bridge:
    """The core of the program; see the module's text.

    Times are monotonic seconds; ``wall_offset`` added to them gives seconds since 1970.
    ``mappings`` are the kernel's, where it translates datagrams.
    """

    def __init__(
        self,
        entries: list[Entry],
        limits: Limits,
        timeouts: Timeouts,
        keys: Keyring,
        ledger: Ledger,
        now: float,
        wall_offset: float,
        fast: FastPath | None = None,
        mappings: Mappings | None = None,
    ) -> None:
        self.ledger = ledger
        self._fast: FastPath = NoFastPath() if fast is None else fast
        self.fast = self._fast
        self.table = FlowTable(limits, timeouts, ledger, self._fast, now)
        self._context = Context(keys, ledger, self.table, self._fast, now, now + wall_offset)
        self.out, self.beforehand = self._context.out, self._context.beforehand
        self._ways = Ways(entries)
        self._entries, self._by_server = self._ways.inbound, self._ways.by_server
        self._adoption = Adoption(self._context, self._entries)
        self._parting = Parting(self._context)
        self.datagrams = Datagrams(self._context, self._ways, limits, timeouts, mappings)
        self.access = self._context.access
        sources = Sources()
        self._connector = Connector(self._context, sources)
        self._opener = Opener(self._context, self._connector, sources)
        self._strangers = Strangers(self._context, self._opener.early)
        self._ends = Ends(self._context)
        self._uninspected = Uninspected(self._context, sources)
        self._outbound = self.table.outbound
        self._inbound = self.table.inbound
        self._wall_offset = wall_offset
        self._leaving = False
        self._gathered = now
        self._up = self._down = 0  # by the short way, since they were last added to the ledger
        self._up_bytes = self._down_bytes = 0  # by either

    def packet(self, data: bytes, now: float, mark: int = 0) -> bytes | None:
        """The verdict on one packet with its netfilter ``mark``; never raises for its content."""
        key = data[12:24]
        flow = self._outbound.get(key)
        if flow is not None:
            if flow.fast and (translated := splice.down(flow, data)) is not None:
                flow.seen = now
                self._down += 1
                self._carried_down(flow, data)
                if not flow.marks & ANSWERED and len(data) > 20 + (data[32] >> 2):
                    flow.answered(now)
                if flow.client_fin is not None:
                    self._ends.server_has(flow, now)
                    self._fast.follow(flow)
                return translated
        elif len(data) >= MIN_PACKET:
            flow = self._inbound[data[1] >> 2].get(key)
            if flow is not None and flow.fast and (translated := splice.up(flow, data)) is not None:
                flow.seen = now
                self._up += 1
                self._carried_up(flow, data)
                return self._upward(flow, translated)
        try:
            return self._slow(data, now, mark)
        except MalformedError as error:
            return self.ledger.drop(error.reason, data)

    def gather(self, now: float) -> None:
        """Take what the kernel has seen end, with some more at once where that is not long ago."""
        if now < self._gathered + GATHERING:
            return
        self._gathered = now
        self._context.wall = now + self._wall_offset
        self._ends.take_reported()

    def settle(self) -> None:
        """The queue's packets have been judged, as far as a turn goes: what the kernel is given
        now overtakes few of them, or none."""
        for step in self.beforehand:  # where the core is not run by turns
            step()
        self.beforehand.clear()
        self._fast.settle()
        if self._context.over:
            answers.say_ended(self._context)

    def next_deadline(self) -> float:
        """When ``timers`` is to be called next, at the latest."""
        if self._adoption.pending:
            return 0.0
        due = min(self._context.schedule.next(), self.datagrams.due)
        return min(due, self._gathered + GATHERED) if self._fast.reports and self._outbound else due

    def timers(self, now: float, wall_offset: float) -> None:
        """Do what is due by ``now``; the wall clock may have been set since the last call."""
        self._wall_offset = wall_offset
        self._context.wall = now + wall_offset
        self._context.keys.expire(now)
        self._context.schedule.run(now, self._end_idle)
        self.datagrams.timers(now)
        if self._adoption.pending:
            self._adoption.step(now)
        self.gather(now)
        answers.say_ended(self._context)

    def rekey(self, held: Sequence[Keys], now: float) -> str:
        """Accept handoffs under these keys from now on; says which keys are in force."""
        self._context.keys.replace(held, now)
        return str(self._context.keys)

    def drain(self, _now: float) -> None:
        """Give back new connections from now on; those that there are go on."""
        self._opener.draining = True

    def remaining(self) -> int:
        """How many connections have not ended."""
        return sum(flow.state is not State.LINGER for flow in self._outbound.values())

    def farewell(self, now: float) -> Iterator[None]:
        """End all flows, as nobody will translate them any more: both sides are reset, and what is
        still being opened goes back to the balancer. In parts, for their packets to be sent.

        What a client has on its way meanwhile shows a newer number than was known: it is answered
        with another RST, for as long as packets are still judged."""
        self._leaving = True
        self._context.wall = now + self._wall_offset
        for number, flow in enumerate(list(self._outbound.values())):
            end(self._context, flow, End.STOPPED, now)
            if number % FAREWELL_PART == 0:
                answers.say_ended(self._context)
                yield
        answers.say_ended(self._context)
        yield

    # --- the operator's, and the checks' ---

    @property
    def entries(self) -> list[Entry]:
        """The ways in, and how they are."""
        return self._ways.entries

    def mark_server(self, name: str, up: bool, reason: str, now: float) -> None:
        """What a check has found of the server behind ADDRESS:PORT, or ADDRESS:PORT/DSCP, of this
        bridge. One that is down gets no new connections; those that wait for it are given back, and
        the others go on or are reset, as configured. Raises KeyError for a name that is none."""
        self._context.wall = now + self._wall_offset
        for entry in self._ways.named(name):
            fell = entry.up and not up
            if entry.up != up:
                how = "is up again" if up else f"is down: {reason}"
                self.ledger.warn(entry.name, f"server {entry.server_name} {how}")
            entry.up, entry.reason = up, reason
            if fell:
                self._parting.begin(entry.asking, _is_asking, End.DOWN, now)
            if fell and entry.on_down == "reset":
                of_it = partial(_is_of, entry)
                self._parting.begin(self._outbound.values(), of_it, End.DOWN, now)

    def drain_entry(self, name: str, draining: bool) -> None:
        """Give back new connections by ADDRESS:PORT, or ADDRESS:PORT/DSCP, or no more. Raises
        KeyError for a name that is none."""
        for entry in self._ways.named(name):
            entry.draining = draining

    def end(self, flow: Flow | Mapping, now: float) -> None:
        """End a connection for both sides at the operator's word, and tell the balancer; or forget
        a mapping."""
        self._context.wall = now + self._wall_offset
        if isinstance(flow, Mapping):
            self.ledger.counts[Killed.FLOWS] += 1
            self.datagrams.end(flow)
        elif flow.state is not State.GONE:
            self.ledger.counts[Killed.FLOWS] += 1
            kill(self._context, flow, End.KILLED, now)

    def reconfigure(self, entries: list[Entry], limits: Limits, timeouts: Timeouts) -> None:
        """Have these ways in, bounds and time-outs from now on. Connections by a way that is gone
        go on: see former."""
        self.table.configure(limits, timeouts)
        self._ways.replace(entries)
        self.datagrams.configure(limits, timeouts)

    def former(self) -> list[Entry]:
        """Ways in that are not configured any more, and have connections still: for as long they
        need rules. The others are forgotten."""
        former = self._ways.former_in_use()
        self.datagrams.follow()
        return former

    def counts(self) -> Counter[Outcome | Occurrence]:
        """What was counted so far; the short way keeps numbers of its own, which is quicker."""
        counts = self.ledger.counts
        counts[Served.UP] += self._up
        counts[Served.DOWN] += self._down
        counts[Carried.UP] += self._up_bytes
        counts[Carried.DOWN] += self._down_bytes
        self._up = self._down = self._up_bytes = self._down_bytes = 0
        return counts

    def gauges(self) -> dict[str, int]:
        """Sizes of tables and buffers."""
        self._ends.take_reported()
        return {
            "flows": len(self.table),
            "held_bytes": self.table.held_bytes,
            "mappings": len(self.datagrams.mappings),
            **self._fast.gauges(),
        }

    def _upward(self, flow: Flow, translated: bytes, first: bool = False) -> bytes | None:
        """With the bridge's own address as source a packet cannot go on from where one came in:
        the kernel takes it for a martian. It is sent as a packet of this host.

        So is, for the mark, what may be the server's first: a server that has run out of memory
        for handshakes (SYN cookies, RFC 4987 section 3.6) makes its socket from that packet, and
        the socket's mark is that packet's. A handoff that comes again may be it where the kernel
        had the flow from its beginning, and Python has not heard the server."""
        if not flow.entry.own_source and flow.opening is None and not first:
            return translated
        self.out.append((flow.entry.mark, translated))
        return DROP

    def _carried_up(self, flow: Flow, data: bytes) -> None:
        size = len(data)
        self._up_bytes += size
        flow.entry.figures.up_bytes += size
        if flow.story is not None:
            flow.story.up_bytes += size

    def _carried_down(self, flow: Flow, data: bytes) -> None:
        size = len(data)
        self._down_bytes += size
        flow.entry.figures.down_bytes += size
        if flow.story is not None:
            flow.story.down_bytes += size

    def _end_idle(self, now: float) -> bool:
        ended, more = self.table.expired(now)
        for flow in ended:
            end(self._context, flow, End.IDLE, now)
        return more

    def _slow(self, data: bytes, now: float, mark: int) -> bytes | None:
        self._context.wall = now + self._wall_offset
        if len(data) > 9 and data[9] != TCP:
            if data[9] == UDP:
                return self.datagrams.packet(data, now)
            if data[9] == ICMP:
                return self._icmp(data, now)
        segment = Segment(data)
        dscp = segment.tos >> 2
        entry = self._entries.get((segment.dst, dscp, segment.dport))
        if entry is not None:
            return self._from_client(entry, segment, now)
        servers = self._by_server.get(segment.src + segment.sport.to_bytes(2, "big"))
        if servers is not None:
            return self._from_server(servers, segment, now, mark)
        return self.ledger.drop(Senseless.NO_ENTRY, data)

    def _icmp(self, data: bytes, now: float) -> bytes | None:
        if not quotations.is_of_server(data, self._ways):
            quoted = icmp.quoted_key(data)
            if quoted is None or quoted[0] == TCP:
                return icmp_errors.translate(data, self._inbound, self.ledger)
        return self.datagrams.icmp(data, now)

    def _from_client(self, entry: Entry, segment: Segment, now: float) -> bytes | None:
        flow = self._inbound[entry.dscp].get(segment.key)
        if flow is None and self._adoption.pending:
            flow = self._adoption.find(segment.key, entry.dscp, now)
        option = handoff.find(segment.options)
        if option is not None:
            segment.check_checksum()
            flow = self._opener.take(entry, segment, option, now)
            if flow is None:
                return DROP
        if segment.flags & SYN:
            if entry.handoff:
                return self.ledger.drop(Senseless.SYN, segment.data)
            return self._uninspected.syn(entry, flow, segment, now, self._opener.draining)
        if flow is None and not entry.handoff and not self._leaving:
            flow = self._uninspected.pick_up(entry, segment, now)
        if flow is None:
            return self._strangers.from_client(entry, segment, now, self._leaving)
        flow.seen = now
        if flow.state is State.SYN_SENT:
            return self._opener.hold(flow, segment, now)
        if flow.opening is not None:
            segment.check_checksum()  # what is noted goes into other segments
            flow.opening.note(segment)
        if flow.stamper is not None:
            flow.stamper.note(segment)
        unheard = flow.marked(UNHEARD)
        if unheard:
            self._uninspected.client_says(flow, segment)
        translated = splice.up_any(flow, segment)
        self._carried_up(flow, segment.data)
        self._ends.client_says(flow, segment, now)
        self._fast.follow(flow)
        self.ledger.counts[Served.UP] += 1
        first = unheard or (option is not None and flow.marked(IN_KERNEL))
        return self._upward(flow, translated, first)

    def _from_server(
        self, servers: list[Entry], segment: Segment, now: float, mark: int
    ) -> bytes | None:
        flow = self._outbound.get(segment.key)
        if flow is None and self._adoption.pending:
            flow = self._adoption.find(segment.key, None, now)
        if flow is None and (entry := _marked(servers, mark)) is not None and not self._leaving:
            flow = self._uninspected.pick_up_down(entry, segment, now)
        if flow is None:
            return self._strangers.from_server(servers, segment, now, mark)
        flow.seen = now
        if flow.marked(UNHEARD):
            self._uninspected.server_says(flow, segment, now)
        elif flow.state is State.SYN_SENT or segment.flags & SYN:
            return self._connector.from_server(flow, segment, now)
        self._fast.recall(flow)
        translated = splice.down_any(flow, segment, now)
        self._carried_down(flow, segment.data)
        if segment.payload:
            flow.answered(now)
        if segment.flags & ACK:
            self._connector.acknowledged(flow, segment.ack)
            self._ends.server_has(flow, now)
        self._ends.server_says(flow, segment, now)
        self._fast.follow(flow)
        return self.ledger.passed(Served.DOWN, translated)


def _marked(servers: list[Entry], mark: int) -> Entry | None:
    return next((entry for entry in servers if entry.mark == mark), None)


def _is_asking(flow: Flow) -> bool:
    return flow.state is State.SYN_SENT


def _is_of(entry: Entry, flow: Flow) -> bool:
    return flow.entry is entry and flow.state is not State.LINGER
