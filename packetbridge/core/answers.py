"""What the bridge tells the balancer about a flow: from the client's address, to the VIP, with the
handoff option under the key of answers."""

from __future__ import annotations

from common.core import handoff
from common.core.handoff import Kind
from common.core.segment import ACK, ECN_BITS, MASK, Segment, build_along
from common.core.tcp_options import NO_SCALE
from packetbridge.core.context import Context
from packetbridge.core.entry import Entry
from packetbridge.core.flow import Flow


def accepted(context: Context, flow: Flow, lacking: int) -> None:
    """All bytes before the sequence number ``lacking`` are here."""
    _send(context, flow, Kind.ACCEPTED, lacking)


def ended(context: Context, flow: Flow) -> None:
    """The connection is over, as far as a bridge can tell: the balancer need not keep it long.
    Said soon, with others: see say_ended."""
    context.over.append(flow)


def say_ended(context: Context) -> None:
    """Tell the balancers which connections are over: many in one segment, each of which costs as
    much as one for every connection would."""
    over, context.over = context.over, []
    by_entry: dict[Entry, list[Flow]] = {}
    for flow in over:
        by_entry.setdefault(flow.entry, []).append(flow)
    for flows in by_entry.values():
        for at in range(0, len(flows), 1 + handoff.MOST_ENDED):
            first, *others = flows[at : at + 1 + handoff.MOST_ENDED]
            rest = handoff.encode_ended((flow.client_key, flow.isns) for flow in others)
            _send(context, first, Kind.ENDED, (first.c + 1) & MASK, rest)


def refused(context: Context, flow: Flow, first: Segment) -> None:
    """The held segment comes back: the balancer chooses again, or resets.

    Of several the first alone. The client has all of them still, and no acknowledgment of any; it
    sends the others again as soon as the next bridge's server has acknowledged the first. Sent back
    as plain segments they would meet a balancer whose kernel steers them here until it has read
    this one. What the balancer owns it repeats itself."""
    option = _option(context, flow, Kind.REFUSED, first.seq, first.payload)
    packet = first.rewritten(
        dst=flow.entry.vip,
        tos=first.tos & ECN_BITS,
        options=handoff.segment_options(first, option),
    )
    context.out.append((flow.entry.mark, packet))


def refused_syn(context: Context, flow: Flow) -> None:
    """A client's SYN is not taken: the balancer has it still."""
    _send(context, flow, Kind.REFUSED, (flow.c + 1) & MASK)


def _send(context: Context, flow: Flow, kind: Kind, seq: int, rest: bytes = b"") -> None:
    option = _option(context, flow, kind, seq, rest)
    along = flow.client_key
    packet = build_along(along, ACK, seq=seq, ack=flow.b + 1, options=option, payload=rest)
    context.out.append((flow.entry.mark, packet))


def _option(context: Context, flow: Flow, kind: Kind, seq: int, rest: bytes) -> bytes:
    message = handoff.Handoff(kind, 0, 0, NO_SCALE, NO_SCALE, sack=False)
    binding = handoff.Binding(flow.client_key, flow.c, flow.b, seq, rest)
    if kind is not Kind.ENDED:  # which is of many connections, and one word of it is as good
        binding = binding._replace(bridge=flow.entry.address, attempt=flow.attempt)
    keys = context.answering(flow.entry)
    return handoff.encode(keys, message, binding, handoff.epoch_at(context.wall))
