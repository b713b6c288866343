"""Answers that the balancer gives itself, where no backend is to see the request, and the orderly
end of those connections.

The answer and our FIN go in one segment, which is sent again as often as the client asks again.
"""

from __future__ import annotations

from balancer.core.context import Context
from balancer.core.flow import Flow, State
from balancer.core.request import line
from balancer.core.request.head import offset_of
from common.core import tcp_options
from common.core.ledger import Occurrence
from common.core.segment import ACK, FIN, PSH, Segment

RETRY_AFTER = 5  # seconds: when who could not be served may ask again


class Replied(Occurrence):
    """Connections that the balancer answered itself."""

    TOO_MANY = "replied_429"
    UNAVAILABLE = "replied_503"


_REASONS = {
    Replied.TOO_MANY: b"429 Too Many Requests",
    Replied.UNAVAILABLE: b"503 Service Unavailable",
}


def encode(kind: Replied, retry_after: int) -> bytes:
    """The response (RFC 9110 sections 15.5 and 15.6, RFC 6585 section 4), without content, so that
    it fits any method; ``retry_after`` in seconds."""
    return b"HTTP/1.1 %b\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (
        _REASONS[kind],
        retry_after,
    )


def reply_instead(
    context: Context,
    flow: Flow,
    segment: Segment | None,
    kind: Replied,
    retry_after: int,
    now: float,
) -> None:
    """Answer in place of a backend, where the client speaks HTTP/1; reset it otherwise. It has
    had nothing from anybody. ``segment`` is the last of its head, unless that is all our own; or
    the first, of what was read before a restart."""
    head = flow.head
    if flow.is_http is None and segment is not None:
        read = line.inspect(segment.payload, flow.service.max_head)
        flow.is_http = isinstance(read, line.Request)
    if not flow.is_http:
        context.reset_client(flow)
        context.table.remove(flow, now, kind)
        return
    if segment is not None:
        flow.taken = len(segment.payload)
        stamps = tcp_options.timestamps(segment.options)
    if head is not None:
        flow.taken, stamps = len(head.data), head.stamp
    context.table.drop_head(flow)
    if not flow.closing:
        context.table.told(flow, kind, now)
    flow.closing = True  # it need not be kept long
    if flow.state is State.HANDED:
        context.table.take_back(flow, now)
    reply(context, flow, stamps, kind, retry_after)


def reply(
    context: Context, flow: Flow, stamps: tuple[int, int] | None, kind: Replied, retry_after: int
) -> None:
    """Answer a flow, which is CLOSED from now on; ``stamps`` are the newest timestamps (TSval,
    TSecr) of its client."""
    context.ledger.counts[kind] += 1
    flow.said = encode(kind, retry_after)
    flow.state = State.CLOSED
    say(context, flow, stamps)


def say(context: Context, flow: Flow, stamps: tuple[int, int] | None) -> None:
    """Send what a CLOSED flow was answered, if anything, and our FIN."""
    options = b"" if stamps is None else tcp_options.encode_timestamps(stamps[1], stamps[0])
    context.to_client(
        flow,
        FIN | ACK | (PSH if flow.said else 0),
        seq=flow.b + 1,
        ack=flow.first + flow.taken,
        window=flow.service.window if flow.said else 0,
        options=options,
        payload=flow.said,
    )


def again(context: Context, flow: Flow, segment: Segment) -> None:
    """The client of a CLOSED flow goes on: acknowledge that, and say it again."""
    begin = offset_of(segment.seq, flow.first)
    if begin <= flow.taken:
        flow.taken = max(flow.taken, begin + segment.span)
    say(context, flow, tcp_options.timestamps(segment.options))


def ours(flow: Flow) -> int:
    """How many sequence numbers of ours the client may have acknowledged: our SYN, and what we have
    answered, with its FIN."""
    return 1 if flow.state is not State.CLOSED else len(flow.said) + 2
