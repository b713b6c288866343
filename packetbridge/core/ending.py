"""Ending a connection that neither side has ended: it is idle, and its time or its room is over."""

from __future__ import annotations

from packetbridge.core import answers
from packetbridge.core.context import Context
from packetbridge.core.flow import Flow
from packetbridge.core.states import Event, State


def end_idle(context: Context, flow: Flow, now: float) -> None:
    """End ``flow`` for both sides and tell the balancer, unless both have ended it themselves."""
    if flow.state is not State.LINGER:
        context.reset_client(flow)
        context.reset_server(flow)
        answers.ended(context, flow)
    context.table.remove(flow, Event.EXPIRED, now)
