"""The balancer: each packet for a VIP in, a verdict out.

A verdict is the packet to let go on in place of the one that came, or None to drop it. Packets that
the balancer sends of its own accord are collected in ``out``.

The way of a packet: an established connection's is steered by the first lines of ``packet``; a
datagram goes to balancer.core.datagrams; all others go to ``_slow``, which reads the segment whole
and finds its place by table and flags.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from balancer.core import cookie, handshake, icmp_errors, killing, operating
from balancer.core.adoption import Adoption
from balancer.core.answers import Answers
from balancer.core.catalogue import Catalogue
from balancer.core.choice.pool import Pool
from balancer.core.config import Config, Limits, Timeouts
from balancer.core.context import Context, Served
from balancer.core.datagrams.engine import Datagrams
from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import DatagramService
from balancer.core.datagrams.story import MappingStory
from balancer.core.fast_path import FastPath, NoFastPath
from balancer.core.flow import Flow, State, incarnation
from balancer.core.flow_table import Ended, FlowTable
from balancer.core.handover import Handover
from balancer.core.handshake import Refusal
from balancer.core.health import PoolHealth
from balancer.core.reading import Reading
from balancer.core.redispatch import Redispatch, Repeated
from balancer.core.request.head import offset_of
from balancer.core.service import Paths, Service
from balancer.core.story import Story
from balancer.core.strangers import Strangers
from balancer.core.uninspected import Uninspected
from common.core import handoff
from common.core.chores import Chores
from common.core.datagram import UDP
from common.core.errors import MalformedError
from common.core.keys import Keyring, Keys
from common.core.ledger import Ledger, Occurrence, Outcome
from common.core.segment import (
    ACK,
    FRAGMENT_BITS,
    ICMP,
    MASK,
    MIN_PACKET,
    RST,
    SYN,
    TCP,
    Segment,
)

SUSPECT_SECONDS = cookie.LIFETIME  # as long as what answers the SYN can come
# Seconds: that the kernel goes on answering SYNs when it does not hear of the program any more, and
# between two words to it.
ANSWERING, RENEWING = 3.0, 0.5
PROTOCOL_AT = 9  # in the IP header
SAME_CLOCK = 0.001  # seconds; the unit of the timestamps that both read
# Bytes. Segments whose numbers are both so near to those of one that was found to be the old
# connection's are its, too: that a new one's cookie falls there has a chance of 2**-22.
NEAR = 1 << 20

# version and length, total length, fragment, protocol, seq, data offset, flags
_PEEK = struct.Struct("!BxHxxHxB14xI4xBB")
_TIMESTAMPS_ONLY = b"\x01\x01\x08\x0a"


class Senseless(Outcome):
    """Why a packet of no flow was dropped."""

    NO_SERVICE = "no_service"
    NO_ACK = "no_ack_flag"


class Carried(Occurrence):
    """Of IP, in the packets that went on by Python's hand."""

    BYTES = "steered_bytes"


class Balancer:
    """The core of the program; see the module's text.

    Times are monotonic seconds; ``wall_offset`` added to them gives seconds since 1970.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        limits: Limits,
        timeouts: Timeouts,
        keys: Keyring,
        ledger: Ledger,
        now: float,
        wall_offset: float,
        fast: FastPath | None = None,
    ) -> None:
        self.ledger = ledger
        self._fast: FastPath = NoFastPath() if fast is None else fast
        self.fast = self._fast
        self.table = FlowTable(limits, timeouts, ledger, self._fast, now)
        self.health = PoolHealth(self._mark)
        self.health.follow(catalogue.pools, now)
        self._context = Context(
            catalogue, self.health, keys, ledger, self.table, self._fast, now, now + wall_offset
        )
        self.times = self._context.times
        self.access = self._context.access
        self.table.told = self._tell
        self.datagrams = Datagrams(self._context, limits, timeouts, self._fast.mappings, now)
        self.datagrams.table.told = self._tell_mapping
        self.out, self.beforehand = self._context.out, self._context.beforehand
        self._adoption = Adoption(self._context)
        self._adopting = True  # flows or mappings of an earlier run
        self._chores = Chores()
        self._redispatch = Redispatch(self._context)
        self._strangers = Strangers(self._context)
        self._uninspected = Uninspected(self._context, self._strangers)
        self._answers = Answers(self._context, self._redispatch, self._find, self._uninspected)
        self._reading = Reading(self._context, Handover(self._context, self._redispatch))
        self._handed = self.table.handed
        self._wall_offset = wall_offset
        self._answered_unseen = self._fast.answers  # SYNs where the kernel has no record
        self._renewed = 0.0  # when the kernel was last told to answer them, and what clock it has
        self._told_offset = 0.0
        self.draining = False  # no new connections, as a stop is near
        self._steered = 0  # by the short way, since they were last added to the ledger
        self._steered_bytes = 0  # by either

    def packet(self, data: bytes, now: float, mark: int = 0) -> bytes | None:
        """The verdict on one packet; never raises for what a packet holds. ``mark`` is not used."""
        flow = self._handed.get(data[12:24])
        if flow is not None and len(data) >= MIN_PACKET:
            first, length, fragment, protocol, seq, offset, flags = _PEEK.unpack_from(data)
            if (
                first == 0x45
                and flags & (SYN | RST | ACK) == ACK  # an end is the bridge's to judge
                and (offset == 0x50 or (offset == 0x80 and data[40:44] == _TIMESTAMPS_ONLY))
                and (seq - flow.first) & MASK >= flow.handoff_bytes
                and not flow.closing
                and (
                    (flow.suspect_until < now and (flow.fast or not self._answered_unseen))
                    or _goes_on(flow, data, seq)
                )
                and protocol == TCP
                and length == len(data)
                and not fragment & FRAGMENT_BITS
                and flow.target is not None
            ):
                flow.seen = now
                if not flow.answered:
                    flow.answered = (flow.b + 1) & MASK != int.from_bytes(data[28:32], "big")
                self._steered += 1
                self._steered_bytes += length
                return flow.target.steering.plain(data)
        try:
            if len(data) > PROTOCOL_AT and data[PROTOCOL_AT] == UDP:
                return self.datagrams.packet(data, now)
            verdict = self._slow(data, now)
        except MalformedError as error:
            return self.ledger.drop(error.reason, data)
        if verdict is not None:
            self._steered_bytes += len(verdict)
        return verdict

    def gather(self, _now: float) -> None:
        """Take whom the kernel has shaken hands with."""
        self._take_arrivals()

    def settle(self) -> None:
        """The queue's packets have been judged, as far as a turn goes: what the kernel is given
        now overtakes few of them, or none."""
        for step in self.beforehand:  # where the core is not run by turns
            step()
        self.beforehand.clear()
        self._fast.settle()
        self._fast.mappings.settle()

    def next_deadline(self) -> float:
        """When ``timers`` is to be called next, at the latest."""
        return 0.0 if self._adopting or self._chores else self._context.schedule.next()

    def timers(self, now: float, wall_offset: float) -> None:
        """Do what is due by ``now``; the wall clock may have been set since the last call."""
        self._wall_offset = wall_offset
        self._context.wall = now + wall_offset
        self._context.keys.expire(now)
        self._context.schedule.run(now, self._end_idle)
        if self._adopting:
            self._adopt(now)
        self._chores.step(now)
        if now >= self._renewed + RENEWING or abs(wall_offset - self._told_offset) > SAME_CLOCK:
            self._renew(now)

    def rekey(self, held: Sequence[Keys], now: float) -> str:
        """Sign with the first of these keys from now on; says which keys are in force."""
        self._context.keys.replace(held, now)
        self._renew(now)
        return str(self._context.keys)

    def drain(self, now: float) -> None:
        """Refuse new connections from now on; those that there are go on."""
        self.draining = True
        self._renew(now)

    @property
    def pools(self) -> dict[str, Pool]:
        return self._context.catalogue.pools

    @property
    def services(self) -> list[Service]:
        return list(self._context.catalogue.services.values())

    @property
    def datagram_services(self) -> list[DatagramService]:
        return list(self._context.catalogue.datagram_services.values())

    def reconfigure(
        self, config: Config, paths: Paths, now: float, done: Callable[[str], None]
    ) -> None:
        """Go by another configuration as soon as what it takes has been built, which is done little
        by little; ``done`` is called then, with "", or with the error that came of it: nothing has
        changed then."""
        context = self._context

        def switch(catalogue: Catalogue, now: float) -> None:
            operating.switch(context, catalogue, config, now)
            self._renew(now)  # the kernel hears of it at once
            self.datagrams.configure(config)
            for _ in range(2):  # as below
                self._chores.add(self.datagrams.refitting())

        self._chores.add(operating.reconfiguring(context, config, paths, now, switch, done))

    def _mark(self, pool: str, backend: str, up: bool, reason: str, now: float) -> None:
        """A backend is up or down, as its checks say; names that there are none of are ignored."""
        found = self.pools.get(pool)
        member = None if found is None else found.find(backend)
        if found is None or member is None:
            return
        if up:
            found.mark_up(member, now)
            self.ledger.warn(f"{pool}/{backend}", "is up again")
            return
        found.mark_down(member, reason, now)
        self.ledger.warn(f"{pool}/{backend}", f"is down: {reason}")
        # twice: the first may miss one that is looked at for its idleness meanwhile
        for _ in range(2):
            self._chores.add(self.datagrams.leaving(member))
            if found.configured.on_down == "reset":
                self._chores.add(killing.kill_those_of(self._context, member))

    def find_busy(self, told: Callable[[set[tuple[str, int]]], None]) -> None:
        """Have ``told`` called with VIP and port of each service that has a connection, once all
        connections have been looked at, little by little, and what was begun before, such as a
        change of services, is done."""
        self._chores.add(operating.finding_busy(self.table, told))

    def _tell(self, flow: Flow, why: str, now: float) -> None:
        """For the access log."""
        if self.access.wanted:
            self.access.add(Story(flow, why, now, self._wall_offset))

    def _tell_mapping(self, mapping: Mapping, why: str, now: float) -> None:
        """Likewise."""
        if self.access.wanted:
            self.access.add(MappingStory(mapping, why, now, self._wall_offset))

    def remaining(self) -> int:
        """How many connections have not ended."""
        handed = sum(not flow.closing for flow in self._handed.values())
        handed += sum(not flow.closing for flow in self.table.opening.values())
        return handed + sum(flow.state is State.WAITING for flow in self.table.waiting.values())

    def kill(self, flow: Flow | Mapping, now: float) -> None:
        """End a connection, or forget a mapping, at the operator's word."""
        if isinstance(flow, Mapping):
            self.datagrams.kill(flow, now)
            return
        self._context.wall = now + self._wall_offset
        killing.kill(self._context, flow, now)

    def recall(self, flow: Flow | Mapping) -> None:
        """Bring ``flow.seen`` up to date, and what is counted of a mapping."""
        if isinstance(flow, Mapping):
            self._fast.mappings.recall(flow)
        else:
            self._fast.recall(flow)

    def farewell(self, _now: float) -> Iterator[None]:
        """Nothing: without its rules the host itself resets whoever still sends to the VIP."""
        yield from ()

    def counts(self) -> Counter[Outcome | Occurrence]:
        """What was counted so far; the short way keeps a number of its own, which is quicker."""
        counts = self.ledger.counts
        counts[Served.STEERED] += self._steered
        counts[Carried.BYTES] += self._steered_bytes
        self._steered = self._steered_bytes = 0
        self.datagrams.count()
        return counts

    def gauges(self) -> dict[str, int]:
        """Sizes of tables and buffers."""
        self._take_arrivals()
        return {
            "flows": len(self.table.handed),
            "waiting": len(self.table.waiting),
            "opening": len(self.table.opening),
            "buffered_bytes": self.table.buffered_bytes,
            "mappings": len(self.datagrams.table.mappings),
            **self._fast.gauges(),
        }

    def _adopt(self, now: float) -> None:
        """Take some more of what an earlier run has left in the kernel."""
        adoptions = self._adoption, self.datagrams.adoption
        for each in adoptions:
            if each.pending:
                each.step(now)
        self._adopting = any(each.pending for each in adoptions)

    def _take_arrivals(self) -> None:
        services = self._context.catalogue.services
        for arrival in self._fast.arrivals():
            service = services.get(arrival.key[4:8] + arrival.key[10:])
            name = incarnation(*arrival[:3])
            if service is None or service.uninspected or self.table.was_closed(name, arrival.seen):
                continue
            flow = self.table.find(arrival.key)
            if flow is not None and flow.incarnation == name:
                continue  # what it has asked, or repeated, was quicker
            if flow is not None:
                self._replace(flow, arrival.seen)
            handshake.welcome(self._context, service, arrival)

    def _renew(self, now: float) -> None:
        self._renewed, self._told_offset = now, self._wall_offset
        key = self._context.keys.signing.cookie
        every = self._context.catalogue.services.values()
        services = [service for service in every if not service.uninspected]
        until = now if self.draining else now + ANSWERING
        self._fast.answer(services, key, until, self._wall_offset)

    def _end_idle(self, now: float) -> bool:
        ended, more = self.table.expired(now)
        for flow in ended:
            self._expire(flow, now)
        return self.datagrams.table.expire(now) or more

    def _expire(self, flow: Flow, now: float) -> None:
        if flow.state in (State.HANDED, State.OPENING):
            self.ledger.counts[Ended.EXPIRED] += 1
            self.table.remove(flow, now, Ended.EXPIRED)
        else:
            self._reading.expire(flow, now)

    def _slow(self, data: bytes, now: float) -> bytes | None:
        if len(data) > PROTOCOL_AT and data[PROTOCOL_AT] == ICMP:
            catalogue, mapping_of = self._context.catalogue, partial(self.datagrams.find, now=now)
            return icmp_errors.steer(data, catalogue, self._handed, mapping_of, self.ledger)
        segment = Segment(data)
        self._context.wall = now + self._wall_offset
        service = self._context.catalogue.services.get(segment.dst + segment.key[10:12])
        flow = self._find(segment.key, now)
        if service is None and flow is not None:
            service = flow.service  # it is not configured any more
        if service is None:
            return self._without_service(segment)
        option = handoff.find(segment.options)
        if option is not None:
            asked = flow is not None and flow.state in (State.HANDED, State.OPENING)
            return self._answers.take(flow if asked else None, segment, option, now)
        begins = service.uninspected and (flow is None or segment.flags & SYN)
        if begins or (flow is not None and flow.unread):
            steered, draining = self._uninspected, self.draining
            return steered.segment(service, flow, segment, now, draining=draining)
        if segment.flags & SYN:
            segment.check_checksum()
            if flow is not None:
                flow.suspect_until = now + SUSPECT_SECONDS
            if self.draining:
                return handshake.refuse_syn(self._context, segment, Refusal.DRAINING)
            return handshake.answer_syn(self._context, service, segment, flow)
        if flow is not None and self._is_suspect(flow, now):
            flow = self._incarnation(flow, segment, now)
        if flow is None:
            return self._newcomer(service, segment, now)
        if flow.state is State.HANDED:
            return self._handed_segment(flow, segment, now)
        segment.check_checksum()
        if not service.uninspected:
            flow.service = service  # as it is configured now
        return self._reading.segment(flow, segment, now)

    def _find(self, key: bytes, now: float) -> Flow | None:
        flow = self.table.find(key)
        if flow is None and self._adoption.pending:
            flow = self._adoption.find(key, now)
        return flow

    def _is_suspect(self, flow: Flow, now: float) -> bool:
        """Whether a packet with the flow's addresses and ports may be a new connection's: a SYN was
        seen, or it might have been answered without our knowing. ``packet`` asks the same of each
        packet, and so without a call."""
        return flow.suspect_until >= now or (self._answered_unseen and not flow.fast)

    def _incarnation(self, flow: Flow, segment: Segment, now: float) -> Flow | None:
        """The flow that a segment belongs to, a SYN having been seen since: the old one, or None
        where a valid cookie shows a new connection, which ends the old."""
        fresh = ((segment.seq - 1) & MASK, (segment.ack - 1) & MASK)
        if fresh == (flow.c, flow.b) or not segment.flags & ACK or segment.flags & RST:
            return flow
        if handshake.proven(self._context, segment) is None:
            flow.judged = segment.seq, segment.ack
            return flow
        if self.table.was_closed(incarnation(segment.key, *fresh), now):
            return flow  # late, of an older connection: refused like all that does not fit
        segment.check_checksum()
        self._replace(flow, now)
        return None

    def _replace(self, flow: Flow, now: float) -> None:
        """End a flow in favour of a newer one of its addresses and ports."""
        self.ledger.counts[Ended.REPLACED] += 1
        if not flow.closing:  # else its bridge has said so itself
            self._context.forget_at_bridge(flow)
        self.table.remove(flow, now, Ended.REPLACED)

    def _without_service(self, segment: Segment) -> bytes | None:
        """The verdict on a packet for a service that there is none of: while connections of one
        that is not configured any more go on, its packets come here."""
        if segment.flags & (SYN | ACK | RST) != SYN:
            return self.ledger.drop(Senseless.NO_SERVICE, segment.data)
        segment.check_checksum()
        return handshake.refuse_syn(self._context, segment, Senseless.NO_SERVICE)

    def _newcomer(self, service: Service, segment: Segment, now: float) -> bytes | None:
        """The first packet that shows a cookie, or one of a flow that is not known (any more)."""
        if segment.flags & RST:
            return self._strangers.reset(service, segment, now)
        if not segment.flags & ACK:
            return self.ledger.drop(Senseless.NO_ACK, segment.data)
        segment.check_checksum()
        promise = handshake.proven(self._context, segment)
        if promise is None:
            return self._strangers.segment(service, segment, now)
        flow = handshake.admit(self._context, service, segment, promise, now)
        if flow is None:
            return self.ledger.drop(Refusal.CLOSED_FLOW, segment.data)
        return self._reading.segment(flow, segment, now)

    def _handed_segment(self, flow: Flow, segment: Segment, now: float) -> bytes | None:
        """A handed flow's packet that is not plain: repeated handoffs, unusual options, and ends:
        those are for the bridge to judge, which knows the sequence numbers, and says so."""
        target = flow.target
        assert target is not None, "a handed flow has a target"
        offset = offset_of(segment.seq, flow.first)
        if segment.payload and self._redispatch.is_repeating(flow, offset):
            return self.ledger.drop(Repeated.ON_ITS_WAY, segment.data)
        if offset == 0 and flow.handoff_bytes and _is_handoff(flow, segment):
            segment.check_checksum()  # else no bridge would answer it
            return self._redispatch.repeat(flow, segment, now)
        flow.seen = now
        if segment.flags & ACK and segment.ack != (flow.b + 1) & MASK:
            flow.answered = True
        return self.ledger.passed(Served.STEERED, target.steering.segment(segment))


def _goes_on(flow: Flow, data: bytes, seq: int) -> bool:
    """Whether a packet without IP options goes on where the flow was when it was last judged: then
    a SYN seen since says nothing, and whoever sends those does not make each packet cost a MAC."""
    judged_seq, judged_ack = flow.judged
    return _near(seq, judged_seq) and _near(int.from_bytes(data[28:32], "big"), judged_ack)


def _is_handoff(flow: Flow, segment: Segment) -> bool:
    """Whether a segment that begins like the request may be handed over, as a bridge sees it: with
    another acknowledgment it would be of another connection."""
    its_own = segment.ack == (flow.b + 1) & MASK and segment.flags & (ACK | RST) == ACK
    return bool(segment.payload) and its_own


def _near(a: int, b: int) -> bool:
    return (a - b + NEAR) & MASK < 2 * NEAR
