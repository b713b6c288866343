"""The bridge's flows: one record for both directions, a hard bound, idle expiry, and a memory of
the closed.

What is remembered of a flow that is over depends on how far it had come, for as long as a handoff
of it can still be authentic:

* The server may have had the request: no handoff of that incarnation opens anything any more.
* It has not, as the bridge gave the connection back or was told to forget it: no handoff of that
  *attempt* does, be it repeated by a balancer that has not heard yet, late, or replayed, as another
  bridge may have the request by now. One that was given back is given back again. The next attempt
  of the same incarnation is new: the balancer has come back on purpose, and says so under the MAC.
* Either way, if it is the balancer's that the connection goes on, elsewhere: client's packets that
  were steered here before are dropped, and answered by nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from common.core.eviction import longest_idle
from common.core.handoff import EPOCH_SECONDS, EPOCH_SLACK
from common.core.ledger import Ledger, Occurrence
from common.core.remembered import Remembered
from common.core.timing import ASK_AGAIN, IdleWheel
from packetbridge.core.config import Limits, Timeouts
from packetbridge.core.fast_path import FastPath
from packetbridge.core.flow import UNANSWERED, Flow
from packetbridge.core.states import Event, State

# A handoff is valid in its own epoch and the ones beside it; after that its replay is too old.
REMEMBER_CLOSED = EPOCH_SECONDS * (2 * EPOCH_SLACK + 1)


HALF_OPEN_PART = 8  # of the flows, one in so many may be half open


class Flows(Occurrence):
    """Flows begun, and ended by each event that ends them."""

    OPENED = "flows_opened"
    UNREACHABLE = "flows_unreachable"
    RESET = "flows_reset"
    REPLACED = "flows_replaced"
    EXPIRED = "flows_expired"
    EVICTED = "flows_evicted"  # the longest idle, for a newer one: expired before its time
    HALF_OPEN_EVICTED = "half_open_evicted"  # the oldest half-open one, likewise


_ENDED = {
    Event.UNREACHABLE: Flows.UNREACHABLE,
    Event.RESET: Flows.RESET,
    Event.REPLACED: Flows.REPLACED,
    Event.EXPIRED: Flows.EXPIRED,
}


class FlowTable:
    """``inbound[dscp]`` finds a flow by the key of the client's packets, ``outbound`` by that of
    the server's. ``held_bytes`` is what all openings hold. ``half_open`` are those of these whose
    client has not proven that it gets what the server sends, oldest first: they are few."""

    def __init__(
        self, limits: Limits, timeouts: Timeouts, ledger: Ledger, fast: FastPath, now: float
    ) -> None:
        self._fast = fast
        self.inbound: list[dict[bytes, Flow]] = [{} for _ in range(64)]
        self.outbound: OrderedDict[bytes, Flow] = OrderedDict()
        self.held_bytes = 0
        self.half_open: OrderedDict[bytes, Flow] = OrderedDict()  # by the key of the server's
        self._ledger = ledger
        self._wheel: IdleWheel[Flow] = IdleWheel(now)
        self._closed = Remembered(REMEMBER_CLOSED, limits.closed)
        self._given_back = Remembered(REMEMBER_CLOSED, limits.closed)
        self._elsewhere = Remembered(REMEMBER_CLOSED, limits.closed)
        self.configure(limits, timeouts)

    def configure(self, limits: Limits, timeouts: Timeouts) -> None:
        """Bounds and time-outs from now on."""
        self._limits = limits
        for memory in (self._closed, self._given_back, self._elsewhere):
            memory.limit = limits.closed
        self._idle = {
            State.HANDOFF: timeouts.idle,
            State.SYN_SENT: timeouts.idle,
            State.SPLICED: timeouts.idle,
            State.CLOSING: timeouts.closing,
            State.LINGER: timeouts.linger,
        }
        self._ask_again = min(ASK_AGAIN, max(min(self._idle.values()), 0.5))

    def __len__(self) -> int:
        return len(self.outbound)

    def __contains__(self, outbound: object) -> bool:
        """Whether the server's packets of that key belong to a flow; to one that the kernel goes on
        with after a restart, and which is not among these yet, as well."""
        if outbound in self.outbound:
            return True
        return isinstance(outbound, bytes) and self._fast.former(outbound, None) is not None

    def full(self) -> bool:
        return len(self.outbound) >= self._limits.flows

    def longest_idle(self, now: float) -> Flow | None:
        """The flow to end in favour of a new one; None: all are in use."""
        return longest_idle(self.outbound, now, self._fast.recall)

    def may_hold(self) -> bool:
        return self.held_bytes < self._limits.held_bytes

    def add(self, flow: Flow) -> None:
        self.inbound[flow.entry.dscp][flow.inbound] = flow
        self.outbound[flow.outbound] = flow
        self._wheel.add(flow.seen + self._ask_again, flow)
        self._ledger.counts[Flows.OPENED] += 1
        flow.entry.figures.handoffs += 1

    def add_half_open(self, flow: Flow) -> Flow | None:
        """Take a flow whose client has not proven itself; gives one that has to go for it."""
        oldest = None
        if len(self.half_open) >= max(self._limits.flows // HALF_OPEN_PART, 1):
            oldest = self.oldest_half_open()
        self.add(flow)
        self.half_open[flow.outbound] = flow
        return oldest

    def oldest_half_open(self) -> Flow | None:
        return next(iter(self.half_open.values()), None)

    def proven(self, flow: Flow) -> None:
        """The client has acknowledged what the server said."""
        self.half_open.pop(flow.outbound, None)

    def adopt(self, flow: Flow) -> None:
        """Take a flow that was spliced before, as the kernel remembers."""
        flow.entry.note(flow, State.HANDOFF)
        self.inbound[flow.entry.dscp][flow.inbound] = flow
        self.outbound[flow.outbound] = flow
        self._wheel.add(flow.seen + self._ask_again, flow)

    def readdress(self, flow: Flow, source: bytes) -> None:
        """Another address and port (6 bytes) for the server to see as the client's."""
        del self.outbound[flow.outbound]
        flow.address(source)
        self.outbound[flow.outbound] = flow

    def remove(self, flow: Flow, event: Event, now: float) -> None:
        """Forget a flow for ``event``, but not that it was: late packets and replays are known."""
        asked_only = flow.state is State.SYN_SENT or flow.marked(UNANSWERED)
        flow.apply(event)
        self.settle(flow)
        self._fast.forget(flow)
        self.inbound[flow.entry.dscp].pop(flow.inbound, None)
        self.outbound.pop(flow.outbound, None)
        self.half_open.pop(flow.outbound, None)
        self._closed.add(_attempt(flow) if asked_only else _incarnation(flow), now)
        self._closed.add(flow.outbound, now)
        self._ledger.counts[_ENDED[event]] += 1

    def give_back(self, flow: Flow, now: float) -> None:
        """Remember that this attempt, in the table or not, was given back to the balancer."""
        self._given_back.add(_attempt(flow), now)
        self._elsewhere.add(_at(flow), now)

    def disown(self, flow: Flow, now: float) -> None:
        """Remember that this attempt, in the table or not, is not to be made, or made further."""
        self._closed.add(_attempt(flow), now)
        self._elsewhere.add(_at(flow), now)

    def settle(self, flow: Flow) -> None:
        """Let go of what the flow's opening holds."""
        if flow.opening is not None:
            self.held_bytes -= flow.opening.held_bytes
            flow.opening = None
            flow.refresh()

    def was_closed(self, flow: Flow, now: float) -> bool:
        """Whether that flow, or that attempt at it, has ended already."""
        closed = self._closed
        return closed.holds(_incarnation(flow), now) or closed.holds(_attempt(flow), now)

    def was_given_back(self, flow: Flow, now: float) -> bool:
        """Whether that attempt was given back to the balancer."""
        return self._given_back.holds(_attempt(flow), now)

    def is_elsewhere(self, dscp: int, inbound: bytes, now: float) -> bool:
        """Whether the balancer has taken a connection of that key elsewhere."""
        return self._elsewhere.holds(bytes((dscp,)) + inbound, now)

    def was_spliced(self, outbound: bytes, now: float) -> bool:
        """Whether the server's packet with that key is a late one of a flow that has ended."""
        return self._closed.holds(outbound, now)

    def every(self) -> Iterator[Flow]:
        """All flows, little by little; see IdleWheel.items. Some may be GONE."""
        return self._wheel.items()

    def expired(self, now: float) -> tuple[list[Flow], bool]:
        """Flows whose time is over, still in the table; and whether more may be due at once."""
        return self._wheel.ended(now, self._deadline, self._ask_again)

    def _deadline(self, flow: Flow) -> float | None:
        if flow.state is State.GONE:
            return None
        self._fast.recall(flow)
        if flow.fins and flow.state is State.SPLICED:
            flow.apply(Event.FIN_ONE)  # which the kernel saw
        closing = flow.outbound in self.half_open and flow.state is not State.LINGER
        return flow.seen + self._idle[State.CLOSING if closing else flow.state]


def _at(flow: Flow) -> bytes:
    return bytes((flow.entry.dscp,)) + flow.inbound


def _incarnation(flow: Flow) -> bytes:
    return _at(flow) + flow.isns


def _attempt(flow: Flow) -> bytes:
    return _incarnation(flow) + bytes((flow.attempt,))
