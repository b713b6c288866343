"""What the bridge tells the balancer about a flow: from the client's address, to the VIP, with the
handoff option under the key of answers."""

from __future__ import annotations

from common.core import handoff
from common.core.handoff import Kind
from common.core.segment import ACK, ECN_BITS, MASK, Segment, build_along
from common.core.tcp_options import NO_SCALE
from packetbridge.core.context import Context
from packetbridge.core.flow import Flow


def accepted(context: Context, flow: Flow, lacking: int) -> None:
    """All bytes before the sequence number ``lacking`` are here."""
    _send(context, flow, Kind.ACCEPTED, lacking)


def ended(context: Context, flow: Flow) -> None:
    """The connection is over, as far as a bridge can tell: the balancer need not keep it long."""
    _send(context, flow, Kind.ENDED, (flow.c + 1) & MASK)


def refused(context: Context, flow: Flow, first: Segment) -> None:
    """The held segment comes back: the balancer chooses again, or resets."""
    option = _option(context, flow, Kind.REFUSED, first.seq)
    packet = first.rewritten(
        dst=flow.entry.vip,
        tos=first.tos & ECN_BITS,
        options=handoff.segment_options(first, option),
    )
    context.out.append((flow.entry.mark, packet))


def _send(context: Context, flow: Flow, kind: Kind, seq: int) -> None:
    option = _option(context, flow, kind, seq)
    packet = build_along(_client_key(flow), ACK, seq=seq, ack=flow.b + 1, options=option)
    context.out.append((flow.entry.mark, packet))


def _option(context: Context, flow: Flow, kind: Kind, seq: int) -> bytes:
    message = handoff.Handoff(kind, 0, 0, NO_SCALE, NO_SCALE, sack=False)
    binding = handoff.Binding(_client_key(flow), flow.c, flow.b, seq)
    keys = context.answering(flow.entry)
    return handoff.encode(keys, message, binding, handoff.epoch_at(context.wall))


def _client_key(flow: Flow) -> bytes:
    """The 12-byte key of the flow's packets as the client sends them."""
    return flow.inbound[:4] + flow.entry.vip + flow.inbound[8:]
