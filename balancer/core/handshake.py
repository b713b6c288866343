"""The client's handshake: a SYN is answered from the cookie alone, an ACK makes a flow of it."""

from __future__ import annotations

from balancer.core import cookie
from balancer.core.context import Context
from balancer.core.fast_path import Arrival
from balancer.core.flow import Flow, incarnation
from balancer.core.service import Service
from common.core import tcp_options
from common.core.ledger import Outcome
from common.core.segment import ACK, MASK, RST, SYN, Segment, build_along, is_first, reverse
from common.core.tcp_options import NO_SCALE

MAX_ROUND_TRIP = 60_000  # milliseconds; an older echo says nothing of the path


class Refusal(Outcome):
    """Why a SYN or a first ACK was dropped."""

    SIGNED_SYN = "tcp_md5_syn"  # RFC 2385 or RFC 5925: there is no key to answer with
    BAD_SYN = "bad_syn_flags"
    DRAINING = "draining"  # the balancer is about to stop
    CLOSED_FLOW = "closed_flow_again"  # a late or replayed request of a connection that is over


class Answered(Outcome):
    """What became of a SYN that was not dropped."""

    SYN = "syn"


def answer_syn(context: Context, service: Service, syn: Segment, live: Flow | None) -> bytes | None:
    """Send the SYN-ACK; nothing is kept, but for the fast path where there is a ``live`` flow of
    the same addresses and ports. The SYN's own data, ECN and unknown options are declined
    by not being mentioned (RFC 7413 section 3: data not acknowledged is sent again)."""
    ledger = context.ledger
    if not is_first(syn.flags):
        return ledger.drop(Refusal.BAD_SYN, syn.data)
    offer = tcp_options.offer(syn.options)
    if offer.signed:
        return ledger.drop(Refusal.SIGNED_SYN, syn.data)
    wall = context.wall
    sack = offer.sack and service.sack
    promise = cookie.Promise(offer.mss, sack, offer.scale)
    isn = cookie.make(context.keys.signing.cookie, syn.key, syn.seq, promise, wall)
    if live is not None:
        context.fast.expect(live, isn)
    stamps = None
    if offer.timestamps is not None and service.timestamps:
        stamps = _ticks(wall), offer.timestamps[0]
    scale = NO_SCALE if offer.scale == NO_SCALE else service.window_scale
    context.send(
        build_along(
            reverse(syn.key),
            SYN | ACK,
            seq=isn,
            ack=syn.seq + 1,
            window=service.window,
            options=tcp_options.encode_offer(service.mss, scale, sack, stamps),
        )
    )
    return ledger.took(Answered.SYN)


def refuse_syn(context: Context, syn: Segment, reason: Outcome) -> bytes | None:
    """Answer as a host without a listener (RFC 9293 section 3.10.7.1)."""
    context.send(build_along(reverse(syn.key), RST | ACK, seq=0, ack=syn.end))
    return context.ledger.drop(reason, syn.data)


def proven(context: Context, segment: Segment) -> cookie.Promise | None:
    """What we promised to the sender of ``segment``, if it acknowledges a cookie of ours."""
    return _promise(context, segment.key, (segment.seq - 1) & MASK, (segment.ack - 1) & MASK)


def unused(context: Context, segment: Segment) -> bool:
    """Whether it is a keep-alive probe (RFC 9293 section 3.8.4) of a client that has not sent
    anything yet, and whose acknowledgment of our SYN-ACK was lost: there is no flow, and all is
    well."""
    return _promise(context, segment.key, segment.seq, (segment.ack - 1) & MASK) is not None


def _promise(context: Context, key: bytes, c: int, b: int) -> cookie.Promise | None:
    for keys in context.keys.accepted:
        promise = cookie.check(keys.cookie, key, c, b, context.wall)
        if promise is not None:
            return promise
    return None


def admit(
    context: Context, service: Service, segment: Segment, promise: cookie.Promise, now: float
) -> Flow | None:
    """The flow that ``segment`` completes the handshake of, in the table; None where a connection
    of the same addresses, ports and initial sequence numbers is over already."""
    c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
    if context.table.was_closed(incarnation(segment.key, c, b), now):
        return None
    flow = Flow(segment.key, service, c, b, now)
    _admit(context, flow, promise, _round_trip(segment, context.wall))
    return flow


def welcome(context: Context, service: Service, arrival: Arrival) -> None:
    """Take a client whose handshake the kernel has done."""
    flow = Flow(arrival.key, service, arrival.c, arrival.b, arrival.seen)
    _admit(context, flow, cookie.promise(arrival.b), arrival.round_trip)


def _admit(context: Context, flow: Flow, promise: cookie.Promise, rtt: int) -> None:
    flow.mss, flow.sack, flow.client_scale = promise.mss, promise.sack, promise.scale
    if promise.scale != NO_SCALE:
        flow.promised_scale = flow.service.window_scale
    flow.rtt = rtt
    if rtt:
        context.times.handshake.observe(rtt / 1000)
    context.table.admit(flow)


def _ticks(wall: float) -> int:
    """Our timestamps clock: milliseconds (RFC 7323 section 5.4 allows 1 ms to 1 s)."""
    return int(wall * 1000) & MASK


def _round_trip(segment: Segment, wall: float) -> int:
    """Milliseconds from our SYN-ACK to ``segment``, 0 where its timestamps do not tell."""
    stamps = tcp_options.timestamps(segment.options)
    if stamps is None:
        return 0
    elapsed = (_ticks(wall) - stamps[1]) & MASK
    return elapsed if elapsed < MAX_ROUND_TRIP else 0
