"""The datagrams' part of the balancer: each datagram for a VIP in, a verdict out.

A client that is not known gets a backend by its first datagram, which goes there at once, as all
its others do for as long as it is not silent for too long, and its backend is there. Nothing is
awaited or kept for it but its mapping. Where nobody can take it, its datagram is dropped without a
word: an ICMP error would tell the client's program that nothing listens here, and it would give up
for good what may work in a second (RFC 1122 section 4.1.3.3).
"""

from __future__ import annotations

import struct
from itertools import islice

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.member import Member
from balancer.core.config import Config, Limits, Timeouts
from balancer.core.context import Context
from balancer.core.datagrams.adoption import MappingAdoption
from balancer.core.datagrams.fast_path import FastMappings
from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import ANY_PORT, DatagramService, fitting
from balancer.core.datagrams.table import Mapped, MappingTable
from common.core.chores import Part
from common.core.datagram import MIN_DATAGRAM, Datagram
from common.core.ledger import Occurrence, Outcome
from common.core.segment import FRAGMENT_BITS, IP_HEADER

LOOKED_AT = 512  # mappings in one go, each with a word to the kernel where it is to go

QUEUED_BYTES = 4016  # of a packet, the most that a queue hands over

# version and length, total length, fragment, source port, UDP length
_PEEK = struct.Struct("!BxHxxH12xHxxH")


class Steered(Outcome):
    """What became of a datagram, where it was read at all."""

    STEERED = "datagram_steered"
    NO_SERVICE = "udp_no_service"
    NO_BACKEND = "udp_no_backend"
    OVER_LIMIT = "udp_over_rate_limit"
    FROM_VIP = "udp_from_vip"  # the answer would come here, as a question: for ever
    TOO_LARGE = "datagram_too_large"  # for a queue: what comes of it is cut off


class Carried(Occurrence):
    """Of IP, in the datagrams that went on by Python's hand."""

    BYTES = "datagram_bytes"


class Datagrams:
    """See the module's text."""

    def __init__(
        self,
        context: Context,
        limits: Limits,
        timeouts: Timeouts,
        fast: FastMappings,
        now: float,
    ) -> None:
        self.table = MappingTable(limits, timeouts, context.ledger, fast, now)
        self.fast = fast
        self.adoption = MappingAdoption(context, self.table, fast)
        self._context = context
        self._mappings = self.table.mappings
        self._steered = self._bytes = 0  # since they were last added to the ledger

    def packet(self, data: bytes, now: float) -> bytes | None:
        """The verdict on a packet of UDP; raises MalformedError for what is no whole datagram."""
        mappings = self._mappings
        mapping = mappings.get(data[12:24])
        if mapping is None:
            mapping = mappings.get(data[12:20] + ANY_PORT + data[22:24])
        if mapping is not None and len(data) >= MIN_DATAGRAM:
            first, length, fragment, sport, udp_length = _PEEK.unpack_from(data)
            if (
                first == 0x45
                and length == len(data)
                and udp_length == length - IP_HEADER.size
                and sport
                and not fragment & FRAGMENT_BITS
            ):
                mapping.seen = now
                mapping.datagrams += 1
                mapping.size += length
                self._steered += 1
                self._bytes += length
                return mapping.target.steering.plain(data)
        if QUEUED_BYTES <= len(data) < int.from_bytes(data[2:4], "big"):
            return self._context.ledger.drop(Steered.TOO_LARGE, data)
        return self._slow(Datagram(data), now)

    def find(self, key: bytes, now: float) -> Mapping | None:
        """The mapping of a datagram's 12-byte key: the flow's own, else the client's."""
        shared = key[:8] + ANY_PORT + key[10:]
        found = self._mappings.get(key) or self._mappings.get(shared)
        if found is None and self.adoption.pending:
            found = self.adoption.find(key, now) or self.adoption.find(shared, now)
        return found

    def count(self) -> None:
        """Bring the ledger up to date; the short way keeps numbers of its own, which is quicker."""
        counts = self._context.ledger.counts
        counts[Steered.STEERED] += self._steered
        counts[Carried.BYTES] += self._bytes
        self._steered = self._bytes = 0

    def kill(self, mapping: Mapping, now: float) -> None:
        """Forget a mapping at the operator's word: the next datagram chooses again."""
        if not mapping.gone:
            self.table.remove(mapping, now, Mapped.KILLED)

    def leaving(self, member: Member) -> Part:
        """The chore that forgets the mappings of a backend that is down."""
        mappings = self.table.every()

        def part(now: float) -> bool:
            some = list(islice(mappings, LOOKED_AT))
            for mapping in some:
                # where it is up again, who has not been looked at may stay
                if not mapping.gone and mapping.target.member is member and not member.up:
                    self.table.remove(mapping, now, Mapped.MOVED)
            return bool(some)

        return part

    def refitting(self) -> Part:
        """The chore that brings mappings to terms with a changed configuration: those of services
        and backends that are there no more are forgotten, and so are those that would have another
        kind of key; the others go on, as configured now."""
        mappings = self.table.every()

        def part(now: float) -> bool:
            some = list(islice(mappings, LOOKED_AT))
            for mapping in some:
                if not mapping.gone:
                    self._refit(mapping, now)
            return bool(some)

        return part

    def configure(self, config: Config) -> None:
        self.table.configure(config.limits, config.timeouts)

    def _refit(self, mapping: Mapping, now: float) -> None:
        services = self._context.catalogue.datagram_services
        found = fitting(services, mapping.key, mapping.target.steering.bridge)
        if found is None or found[1].member is not mapping.target.member:
            self.table.remove(mapping, now, Mapped.MOVED)
        else:
            self.table.refer(mapping, *found)

    def _slow(self, datagram: Datagram, now: float) -> bytes | None:
        ledger = self._context.ledger
        mapping = self.find(datagram.key, now)
        if mapping is None:
            services = self._context.catalogue.datagram_services
            service = services.get(datagram.dst + datagram.key[10:])
            if service is None:
                return ledger.drop(Steered.NO_SERVICE, datagram.data)
            placed = self._place(service, datagram.key, now)
            if isinstance(placed, Steered):
                return ledger.drop(placed, datagram.data)
            mapping = placed
        mapping.seen = now
        mapping.datagrams += 1
        mapping.size += len(datagram.data)
        self._steered += 1
        self._bytes += len(datagram.data)
        return mapping.target.steering.datagram(datagram)

    def _place(self, service: DatagramService, key: bytes, now: float) -> Mapping | Steered:
        """A mapping for a datagram's key, or why there is none."""
        context, source = self._context, key[:4]
        if source in context.catalogue.vips:
            return Steered.FROM_VIP
        chosen_by = service.chosen_by(key)
        member = service.pool.choose(key_hash(chosen_by), source, now)
        if member is None:
            return Steered.NO_BACKEND
        limit = context.catalogue.limits.get(service.pool.name)
        if limit is not None and limit.wait(chosen_by, source, now):
            return Steered.OVER_LIMIT
        mapping = self.table.open(service.key(key), service, service.target(member), now)
        self.fast.steer(mapping)
        if context.ledger.verbose:
            context.ledger.event(f"{mapping}: -> {member.name}")
        return mapping
