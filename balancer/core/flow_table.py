"""The balancer's connections: two bounded tables, idle expiry, and a memory of the closed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from balancer.core import cookie
from balancer.core.config import Limits, Timeouts
from balancer.core.fast_path import FastPath
from balancer.core.flow import Flow, State
from balancer.core.request.head import Head
from common.core.eviction import longest_idle
from common.core.ledger import Ledger, Occurrence
from common.core.remembered import Remembered
from common.core.timing import ASK_AGAIN, IdleWheel

# As long as a SYN's repetitions may be apart (RFC 9293 section 3.8.3: three minutes of them, each
# wait twice the one before).
OPENING_SECONDS = 75.0


class Admitted(Occurrence):
    """Of connections whose client has proven its address."""

    CONNECTION = "connections"
    EVICTED = "waiting_evicted"  # the oldest without a request, for a newer one
    FLOW_EVICTED = "flows_evicted"  # the longest idle that a bridge has, likewise
    OPENING_EVICTED = "opening_evicted"  # the oldest that nobody reads, likewise: see below


class Ended(Occurrence):
    """Why a handed or opening flow was forgotten, other than by a bridge's word."""

    EXPIRED = "flows_expired"
    REPLACED = "flows_replaced"


class FlowTable:
    """``waiting`` holds connections without a request, oldest first; ``handed`` those at a bridge;
    ``opening`` those that nobody reads and whose client has not proven its address, oldest first.

    Apart, because whoever has an address can open connections and send nothing, and whoever has
    none can send SYNs: the waiting ones and the opening ones have bounds of their own and make
    room, oldest first, for newer ones. So do the handed ones, but only those that are idle.
    """

    def __init__(
        self, limits: Limits, timeouts: Timeouts, ledger: Ledger, fast: FastPath, now: float
    ) -> None:
        self._fast = fast
        # told of each connection that is over, why, and when
        self.told: Callable[[Flow, str, float], None] = lambda *_: None
        self.waiting: OrderedDict[bytes, Flow] = OrderedDict()
        self.handed: OrderedDict[bytes, Flow] = OrderedDict()
        self.opening: OrderedDict[bytes, Flow] = OrderedDict()
        self.buffered_bytes = 0  # of all request heads
        self._unread = 0  # of the handed, those that nobody reads
        self._reading: OrderedDict[bytes, Flow] = OrderedDict()  # waiting flows with a head
        self._ledger = ledger
        self._closed = Remembered(cookie.LIFETIME, limits.closed)
        self._wheel: IdleWheel[Flow] = IdleWheel(now)
        self.configure(limits, timeouts)

    def configure(self, limits: Limits, timeouts: Timeouts) -> None:
        """Go by these from now on; how many closed flows are remembered holds from the start on."""
        self._limits = limits
        self._closing = timeouts.closing
        self._ask_again = min(ASK_AGAIN, timeouts.request, timeouts.idle, timeouts.closing)

    def find(self, key: bytes) -> Flow | None:
        return self.handed.get(key) or self.waiting.get(key) or self.opening.get(key)

    def admit(self, flow: Flow) -> None:
        """Take a connection whose client proved its address, at the cost of the oldest waiting."""
        self._make_place(flow.seen)
        self.waiting[flow.key] = flow
        self._watch(flow)
        self._ledger.counts[Admitted.CONNECTION] += 1

    def open(self, flow: Flow) -> None:
        """Take a connection that nobody reads, at the cost of the oldest of those that have not
        proven themselves either."""
        if len(self.opening) >= self._limits.waiting:
            self._ledger.counts[Admitted.OPENING_EVICTED] += 1
            self._forget(self.opening.popitem(last=False)[1], flow.seen, Admitted.OPENING_EVICTED)
        flow.state = State.OPENING
        self.opening[flow.key] = flow
        self._watch(flow)

    def _watch(self, flow: Flow) -> None:
        """Have its time looked at; a service may have shorter ones than the rest."""
        service = flow.service
        shortest = min(self._ask_again, service.request_timeout, service.idle_timeout)
        self._wheel.add(flow.seen + shortest, flow)

    def _make_place(self, now: float) -> None:
        if len(self.waiting) >= self._limits.waiting:
            self._ledger.counts[Admitted.EVICTED] += 1
            oldest = self.waiting.popitem(last=False)[1]
            if oldest.state is State.CLOSED:  # who waits may come again, who has been answered not
                self._closed.add(oldest.incarnation, now)
            self._forget(oldest, now, Admitted.EVICTED)

    def hand(self, flow: Flow) -> bool:
        """Move a waiting or opening flow among the handed; False where there is no room."""
        flow.placed = flow.seen
        if len(self.handed) >= self._limits.flows:
            return False
        if flow.state is State.OPENING:
            del self.opening[flow.key]
            self._ledger.counts[Admitted.CONNECTION] += 1
        else:
            del self.waiting[flow.key]
        self._reading.pop(flow.key, None)
        self._add(flow)
        return True

    def has_share(self) -> bool:
        """Whether another flow that nobody reads may be handed beside those that are read: half of
        the room, as nobody has proven an address there, and whoever forges SYNs and the
        acknowledgments behind them is not to end the others."""
        return self._unread < self._limits.flows // 2

    def _add(self, flow: Flow) -> None:
        self.handed[flow.key] = flow
        self._unread += flow.unread
        flow.state = State.HANDED

    def take_back(self, flow: Flow, now: float) -> None:
        """Move a handed flow among the waiting, CLOSED: nobody could serve it."""
        del self.handed[flow.key]
        self._unread -= flow.unread
        flow.release(now)
        self._fast.forget(flow)
        flow.target = None
        flow.state = State.CLOSED
        self._make_place(now)
        self.waiting[flow.key] = flow

    def adopt(self, flow: Flow) -> bool:
        """Take a flow that a bridge has, as the kernel remembers; False where there is no room."""
        if len(self.handed) >= self._limits.flows:
            return False
        self._add(flow)
        self._watch(flow)
        return True

    def longest_idle(self, now: float) -> Flow | None:
        """Of the handed flows, the one to end in favour of a new one; None: all are in use."""
        return longest_idle(self.handed, now, self._fast.recall)

    def remove(self, flow: Flow, now: float, why: str) -> None:
        """Forget a flow, but not that it was: its request, come again, opens nothing. ``why`` is
        for the access log."""
        opening = self.opening if flow.state is State.OPENING else self.waiting
        table = self.handed if flow.state is State.HANDED else opening
        if table.pop(flow.key, None) is not None:
            self._closed.add(flow.incarnation, now)
            self._unread -= flow.unread and flow.state is State.HANDED
        self._forget(flow, now, why)

    def ended(self, flow: Flow, now: float) -> None:
        """A bridge has said that it is over: it is kept a little longer, in case it is not."""
        flow.release(now)
        if not flow.closing:
            flow.closing = True
            self.told(flow, "ended", now)

    def killed(self, key: bytes, now: float) -> None:
        """Remember a connection that nobody reads, and that was ended on purpose."""
        self._closed.add(key, now)

    def was_killed(self, key: bytes, now: float) -> bool:
        return self._closed.holds(key, now)

    def was_closed(self, incarnation: bytes, now: float) -> bool:
        return self._closed.holds(incarnation, now)

    def begin_head(self, flow: Flow) -> Head:
        """A new head for a waiting flow."""
        head = flow.head = Head()
        self._reading[flow.key] = flow
        return head

    def crowded_out(self, flow: Flow) -> Flow | None:
        """While the heads take more than their bound: whose head is oldest, unless it is
        ``flow``'s own."""
        if self.buffered_bytes <= self._limits.buffered_bytes:
            return None
        oldest = next(iter(self._reading.values()), flow)
        return None if oldest is flow else oldest

    def drop_head(self, flow: Flow) -> None:
        """Let go of a request's kept bytes."""
        if flow.head is not None:
            self.buffered_bytes -= flow.head.kept_bytes
            self._reading.pop(flow.key, None)
            flow.head = None

    def every(self) -> Iterator[Flow]:
        """All flows, little by little; see IdleWheel.items. Some may be GONE."""
        return self._wheel.items()

    def expired(self, now: float) -> tuple[list[Flow], bool]:
        """Flows whose time is over, removed; and whether more may be due at once."""
        return self._wheel.ended(now, self._deadline, self._ask_again)

    def _deadline(self, flow: Flow) -> float | None:
        if flow.state is State.GONE:
            return None
        self._fast.recall(flow)
        if flow.closing or flow.state is State.CLOSED:
            return flow.seen + self._closing
        if flow.state is State.OPENING:
            return flow.seen + OPENING_SECONDS
        service = flow.service
        waiting = flow.state is State.WAITING
        return flow.seen + (service.request_timeout if waiting else service.idle_timeout)

    def _forget(self, flow: Flow, now: float, why: str) -> None:
        if not flow.closing:
            self.told(flow, why, now)
        self.drop_head(flow)
        flow.release(now)
        self._fast.forget(flow)
        flow.state = State.GONE
