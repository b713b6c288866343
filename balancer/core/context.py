"""What all parts of the balancer's core share."""

from __future__ import annotations

from collections.abc import Callable

from balancer.core.catalogue import Catalogue
from balancer.core.fast_path import FastPath
from balancer.core.flow import Flow, State
from balancer.core.flow_table import FlowTable
from balancer.core.health import PoolHealth
from balancer.core.rules import MARK
from balancer.core.times import Times
from common.core import handoff
from common.core.access import AccessRecords
from common.core.keys import Keyring
from common.core.ledger import Ledger, Outcome
from common.core.segment import ACK, RST, build_along, reverse
from common.core.timing import Schedule


class Served(Outcome):
    """What became of a packet that was good for something, where no module of its own counts it."""

    STEERED = "steered"  # to its bridge, as a handoff or as it came
    HEAD_KEPT = "head_kept"  # part of a request, until all that is asked of it is there


class Context:
    """``out`` collects (mark, packet) to be sent, in order; whoever runs the core takes them.
    ``beforehand`` is done just before what comes of the packet at hand leaves.

    ``wall`` is the time of the packet or timer at hand, in seconds since 1970.
    """

    __slots__ = (
        "access",
        "beforehand",
        "catalogue",
        "fast",
        "health",
        "keys",
        "ledger",
        "out",
        "schedule",
        "table",
        "times",
        "wall",
    )

    def __init__(
        self,
        catalogue: Catalogue,
        health: PoolHealth,
        keys: Keyring,
        ledger: Ledger,
        table: FlowTable,
        fast: FastPath,
        now: float,
        wall: float,
    ) -> None:
        self.catalogue = catalogue
        self.health = health
        self.times = Times()
        self.access = AccessRecords(ledger.counts)
        self.fast = fast
        self.keys = keys
        self.ledger = ledger
        self.table = table
        self.out: list[tuple[int, bytes]] = []
        self.beforehand: list[Callable[[], None]] = []
        self.schedule = Schedule(now)
        self.wall = wall

    def send(self, packet: bytes) -> None:
        self.out.append((MARK, packet))

    def to_client(
        self,
        flow: Flow,
        flags: int,
        *,
        seq: int,
        ack: int,
        window: int = 0,
        options: bytes = b"",
        payload: bytes = b"",
    ) -> None:
        """Send the client a segment from the VIP."""
        self.send(
            build_along(
                reverse(flow.key),
                flags,
                seq=seq,
                ack=ack,
                window=window,
                options=options,
                payload=payload,
            )
        )

    def reset_client(self, flow: Flow) -> None:
        """RST with the sequence number that a client which has had no data expects; or, where a
        server that we do not hear makes the handshake, as the answer to the SYN (RFC 9293 section
        3.10.7.3)."""
        if flow.state is State.OPENING:
            self.to_client(flow, RST | ACK, seq=0, ack=flow.first)
        else:
            self.to_client(flow, RST, seq=flow.b + 1, ack=0)

    def forget_at_bridge(self, flow: Flow) -> None:
        """Tell the flow's bridge that this incarnation is over."""
        if flow.target is not None:
            self.send(self.forgetting(flow))

    def forgetting(self, flow: Flow) -> bytes:
        """The packet that tells the flow's bridge so."""
        assert flow.target is not None, "a handed flow has a target"
        option = self.option(flow, handoff.Kind.FORGET, flow.first, handoff.epoch_at(self.wall))
        steering = flow.target.steering
        along = steering.along(flow.key)
        tos = steering.dscp_bits
        return build_along(along, ACK, seq=flow.first, ack=flow.b + 1, options=option, tos=tos)

    def option(self, flow: Flow, kind: handoff.Kind, seq: int, epoch: int) -> bytes:
        """The handoff option for a segment of ``flow`` that starts at ``seq``."""
        message = handoff.Handoff(
            kind=kind,
            mss=flow.mss,
            rtt=flow.rtt,
            client_scale=flow.client_scale,
            promised_scale=flow.promised_scale,
            sack=flow.sack,
        )
        binding = handoff.Binding(flow.key, flow.c, flow.b, seq, attempt=flow.attempt)
        return handoff.encode(self.keys.signing, message, binding, epoch)
