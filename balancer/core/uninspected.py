"""Connections that nobody reads (``inspect = "none"``): steered from the first packet on.

    client's packet                      what becomes of it
    SYN of no connection                 a backend is chosen by the source; the SYN goes there
    the same again, or another SYN       to the same one: the server judges it (RFC 9293 section
                                         3.10.7.4, RFC 5961 section 4)
    acknowledgment                       the connection stands: from here on the kernel's, too
    packet of a connection not known     to where a hash leads again; else as of all strangers

The handshake is the server's own, and nothing that it says passes here: who has been sent a SYN may
not exist. So these flows, OPENING, are few, and the oldest goes for a new one.

A SYN goes elsewhere where its bridge gives it back, where its backend has been found down, or where
the bridge, asked by the client's repetition, does not say that its server has answered: two servers
that answer one SYN would each be wrong for the other's client. What becomes of SYNs says nothing of
a backend's health: anybody can send them, also in names that no kernel on the way takes, which then
nobody answers.
"""

from __future__ import annotations

from functools import partial

from balancer.core import handshake
from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.core.context import Context, Served
from balancer.core.flow import Flow, State
from balancer.core.flow_table import Ended
from balancer.core.handing import Handoffs, name_silent
from balancer.core.handover import Failure, make_room
from balancer.core.handshake import Refusal
from balancer.core.placing import place, place_elsewhere
from balancer.core.redispatch import SHORTEST
from balancer.core.request.keys import shown
from balancer.core.service import Service, Target
from balancer.core.story import Asked
from balancer.core.strangers import Strangers, Unknown
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, MASK, RST, SYN, Segment, build_along, is_first, reverse

# Policies that lead a client to the same backend after all was forgotten.
BY_HASH = ("maglev", "ring", "rendezvous")
MOST_KEPT = 128  # bytes of a SYN: headers and 40 bytes of options are 80, few carry data


class Syns(Occurrence):
    """Of connections that are not read."""

    SYNS = "syns_steered"
    SYNS_REPEATED = "syns_repeated"
    SYN_SILENT = "syn_silent"  # the bridge did not answer for one that was repeated
    PICKED_UP = "flows_picked_up"  # of a connection that was not known (any more)


def source_key(pool: Pool, key: bytes) -> tuple[bytes, str]:
    """What a pool chooses by of the sender of packets with that 12-byte key: its address, with the
    port where the pool says so; and which of both, as configured."""
    if "source-port" in pool.configured.key:
        return key[:4] + key[8:10], "source-port"
    return key[:4], "source"


class Uninspected:
    """What is done about their packets."""

    def __init__(self, context: Context, strangers: Strangers) -> None:
        self._context = context
        self._strangers = strangers

    def segment(
        self, service: Service, flow: Flow | None, segment: Segment, now: float, *, draining: bool
    ) -> bytes | None:
        """The verdict on a client's segment that holds no option of ours."""
        if segment.flags & SYN:
            return self._syn(service, flow, segment, now, draining)
        if flow is None:
            flow = self._pick_up(service, segment, now)
            if flow is None:
                return self._stranger(service, segment, now)
        elif _opens(flow) and segment.flags & (ACK | RST) == ACK:
            self._stands(flow, now)
        flow.seen = now
        return self._steered(flow, segment)

    def given_back(self, flow: Flow, why: Outcome, now: float) -> None:
        """A bridge has not found a server for a SYN. Where nobody else would take it, the client's
        own repetition asks again."""
        former = flow.target
        assert former is not None, "whoever gives a SYN back was its target"
        self._context.health.noted(former.pool.name, former.name, why)
        if not _opens(flow) or self._goes_elsewhere(flow, now):
            return
        if not former.member.taking:
            self._refuse(flow, now)

    def _syn(
        self, service: Service, flow: Flow | None, segment: Segment, now: float, draining: bool
    ) -> bytes | None:
        context = self._context
        if not is_first(segment.flags):
            return context.ledger.drop(Refusal.BAD_SYN, segment.data)
        segment.check_checksum()
        # Over, as its bridge says, or of when the service read requests and this one had not come.
        if flow is not None and (flow.closing or flow.target is None):
            context.ledger.counts[Ended.REPLACED] += 1
            context.table.remove(flow, now, Ended.REPLACED)
            flow = None
        if flow is None:
            return self._begin(service, segment, now, draining)
        flow.seen = now
        if flow.state is State.OPENING:
            self._repeated(flow, segment, now)
        return self._steered(flow, segment)

    def _begin(
        self, service: Service, segment: Segment, now: float, draining: bool
    ) -> bytes | None:
        """Choose a backend for a new connection."""
        context = self._context
        if draining:
            return handshake.refuse_syn(context, segment, Refusal.DRAINING)
        if not service.uninspected:  # any more
            return handshake.answer_syn(context, service, segment, None)
        pool = _pool(context, service)
        key, part = source_key(pool, segment.key)
        limit = context.catalogue.limits.get(pool.name)
        if limit is not None and limit.wait(key, segment.src, now):
            return handshake.refuse_syn(context, segment, Failure.OVER_LIMIT)
        flow = Flow(segment.key, service, segment.seq, 0, now)
        flow.hash64 = key_hash(key)
        target = place(context, flow, pool, now)
        if target is None:
            return handshake.refuse_syn(context, segment, Failure.NOT_SERVED)
        if context.access.wanted:
            words = shown(segment.src, ("source",))
            words += f" port={segment.sport}" if part == "source-port" else ""
            flow.asked = Asked(now, None, None, None, "", pool.name, words)
        flow.syn = segment if len(segment.data) <= MOST_KEPT else None
        context.table.open(flow)
        context.ledger.counts[Syns.SYNS] += 1
        if context.ledger.verbose:
            context.ledger.event(f"{flow}: SYN -> {target.name}")
        return self._steered(flow, segment)

    def _repeated(self, flow: Flow, segment: Segment, now: float) -> None:
        """A client has had no answer yet, or it aborted and asks anew."""
        context, target = self._context, flow.target
        assert target is not None, "an opening flow has a target"
        context.ledger.counts[Syns.SYNS_REPEATED] += 1
        flow.c, flow.first = segment.seq, (segment.seq + 1) & MASK
        if len(segment.data) <= MOST_KEPT:
            flow.syn = segment
        if not target.member.up:
            self._goes_elsewhere(flow, now, sending=False)
        elif not flow.answered and not flow.silent_at:
            flow.silent_at = max(flow.handed_at + target.pool.configured.silence, now + SHORTEST)
            context.schedule.add(flow.silent_at, partial(self._silent, target), flow)

    def _silent(self, target: Target, flow: Flow, now: float) -> None:
        """A bridge has had its time to say that its server has answered."""
        if not _opens(flow) or flow.target is not target or now < flow.silent_at:
            return
        flow.silent_at = 0.0
        if flow.answered:
            return
        context = self._context
        context.ledger.counts[Syns.SYN_SILENT] += 1
        target.unanswered += 1
        name_silent(context, target, "SYNs", "handoff = false, ")
        context.health.noted(target.pool.name, target.name, Handoffs.SILENT)
        self._goes_elsewhere(flow, now)

    def _goes_elsewhere(self, flow: Flow, now: float, sending: bool = True) -> bool:
        """Have another backend asked, by the SYN that is kept if there is one (``sending``), or
        else by the client's next; False where there is no other."""
        context = self._context
        forgetting = context.forgetting(flow)
        target = place_elsewhere(context, flow, now)
        if target is None:
            return False
        if context.ledger.verbose:
            context.ledger.event(f"{flow}: on to {target.name}")
        flow.handed_at, flow.answered, flow.silent_at = now, False, 0.0
        context.send(forgetting)
        if sending and flow.syn is not None:
            context.send(target.steering.segment(flow.syn))
        return True

    def _stands(self, flow: Flow, now: float) -> None:
        """The client has an answer, it says. Without room it stays with the opening ones."""
        context, table = self._context, self._context.table
        if context.catalogue.inspects and not table.has_share():
            return
        if table.hand(flow) or make_room(context, flow, now):
            flow.handed_at, flow.syn = now, None
            context.fast.steer(flow)

    def _pick_up(self, service: Service, segment: Segment, now: float) -> Flow | None:
        """A flow for a packet of a connection that is not known: this program was started anew, or
        the table was full. Who goes by a hash finds the backend again, as long as its set is the
        same; and the bridge or, behind one that does not know it either, the server judges."""
        context = self._context
        pool = _pool(context, service)
        known = segment.flags & (ACK | RST) == ACK and pool.configured.policy in BY_HASH
        if not known or context.table.was_killed(segment.key, now):
            return None
        segment.check_checksum()
        flow = Flow(segment.key, service, 0, 0, now)
        flow.hash64 = key_hash(source_key(pool, segment.key)[0])
        if place(context, flow, pool, now) is None:
            return None
        context.table.open(flow)
        context.ledger.counts[Syns.PICKED_UP] += 1
        return flow

    def _stranger(self, service: Service, segment: Segment, now: float) -> bytes | None:
        context = self._context
        if segment.flags & RST:
            return self._strangers.reset(service, segment, now)
        if not segment.flags & ACK:
            return context.ledger.drop(Unknown.UNKNOWN_FLOW, segment.data)
        segment.check_checksum()
        if context.table.was_killed(segment.key, now):
            context.send(build_along(reverse(segment.key), RST, seq=segment.ack))
            return context.ledger.drop(Unknown.RESET_UNKNOWN, segment.data)
        return self._strangers.segment(service, segment, now)

    def _refuse(self, flow: Flow, now: float) -> None:
        """Answer the client's SYN as a host without a listener."""
        self._context.reset_client(flow)
        self._context.table.remove(flow, now, Failure.NOT_SERVED)

    def _steered(self, flow: Flow, segment: Segment) -> bytes:
        assert flow.target is not None, "a steered flow has a target"
        return self._context.ledger.passed(Served.STEERED, flow.target.steering.segment(segment))


def _opens(flow: Flow) -> bool:
    """Whether it is not over yet, as far as its bridge has said."""
    return flow.state is State.OPENING and not flow.closing


def _pool(context: Context, service: Service) -> Pool:
    """The service's only one, as it is configured now; see Catalogue.current."""
    assert service.default_pool is not None, "there are no routes without inspection"
    return context.catalogue.current(service.pools[service.default_pool])
