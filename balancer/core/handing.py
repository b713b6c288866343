"""The packets that hand a connection over: made of the client's own segments, or of bytes that the
balancer has acknowledged and so must deliver itself."""

from __future__ import annotations

from balancer.core.context import Context
from balancer.core.flow import Flow
from balancer.core.request.head import Head
from balancer.core.service import Target
from common.core import handoff, tcp_options
from common.core.handoff import Kind
from common.core.ledger import Occurrence
from common.core.segment import ACK, FIN, MASK, PSH, Segment, build_along

SILENT_FROM = 3  # handoffs repeated in a row, from which a bridge is taken for silent


class Handoffs(Occurrence):
    """Of handoffs."""

    BEGUN = "handoffs"
    REPEATED = "handoffs_repeated"
    UNCONFIRMED = "handoff_unconfirmed"  # given up
    UNANSWERED = "handoff_unanswered"  # likewise
    SILENT = "bridge_silent"  # it did not answer in time
    TOO_LATE = "handoff_too_late"  # to be repeated; it goes on as a plain segment


def too_late(context: Context, flow: Flow, now: float) -> bool:
    """Whether a bridge would not believe the flow's handoff any more."""
    return handoff.epoch_at(context.wall) - _epoch(context, flow, now) > handoff.EPOCH_SLACK


def made_of(
    context: Context,
    flow: Flow,
    segment: Segment,
    target: Target,
    now: float,
    kind: Kind = Kind.HANDOFF,
) -> bytes:
    """The handoff that a client's segment becomes."""
    epoch = _epoch(context, flow, now)
    option = context.option(flow, kind, segment.seq, epoch)
    options = handoff.segment_options(segment, option)
    if kind is Kind.HANDOFF_CONFIRM and len(segment.payload) <= target.segment_bytes:
        return _anew(segment, options, flow, target)
    return target.steering.segment(segment, options)


def send_owned(context: Context, flow: Flow, head: Head, target: Target, now: float) -> None:
    """Send the bytes without a gap, from the first unconfirmed one, in segments of full size."""
    data, size = bytes(head.data), target.segment_bytes
    epoch = _epoch(context, flow, now)
    flow.handoff_bytes = len(data)
    for at in range(head.confirmed, len(data), size):
        part = data[at : at + size]
        last = at + size >= len(data)
        ended = last and head.complete_fin()
        context.send(_owned_segment(context, flow, head, target, at, part, ended, epoch))


def count_repeated(context: Context, target: Target) -> None:
    """Count, and say so where a bridge seems not to be there: one lost packet is nothing."""
    context.ledger.counts[Handoffs.REPEATED] += 1
    target.unanswered += 1
    if target.unanswered >= SILENT_FROM:
        name_silent(context, target)


def name_silent(context: Context, target: Target, what: str = "handoffs", wanted: str = "") -> None:
    """Tell the operator of a bridge that does not answer ``what``, and is to have ``wanted``."""
    bridge = ".".join(str(byte) for byte in target.steering.bridge)
    dscp = target.steering.dscp_bits >> 2
    context.ledger.warn(
        f"{target.name} does not answer",
        f"{target.unanswered} {what} repeated; is packetbridge running at {bridge}, with "
        f"{wanted}DSCP {dscp}, this VIP and port, and the same key?",
    )


def _epoch(context: Context, flow: Flow, now: float) -> int:
    """The epoch in which the flow was handed over, by the clock as it is set now."""
    return handoff.epoch_at(context.wall - (now - flow.handed_at))


def _owned_segment(
    context: Context,
    flow: Flow,
    head: Head,
    target: Target,
    at: int,
    part: bytes,
    fin: bool,
    epoch: int,
) -> bytes:
    seq = (flow.first + at) & MASK
    options = context.option(flow, Kind.HANDOFF_CONFIRM, seq, epoch)
    if head.stamp is not None:
        options += tcp_options.encode_timestamps(*head.stamp)
    return build_along(
        target.steering.along(flow.key),
        ACK | PSH | (FIN if fin else 0),
        seq=seq,
        ack=flow.b + 1,
        window=head.window,
        options=options,
        payload=part,
        tos=target.steering.dscp_bits,
    )


def _anew(segment: Segment, options: bytes, flow: Flow, target: Target) -> bytes:
    """The segment in a packet of ours: what a client wrote into the IP header, a short time to live
    or options, must not keep it from a bridge that is to answer it."""
    return build_along(
        target.steering.along(flow.key),
        segment.flags,
        seq=segment.seq,
        ack=segment.ack,
        window=segment.window,
        options=options,
        payload=segment.payload,
        tos=target.steering.tos(segment.tos),
    )
