"""The mappings that there are: bounded, the least recently used one first to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import inf

from balancer.core.config import Limits, Timeouts
from balancer.core.datagrams.fast_path import FastMappings
from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import DatagramService, DatagramTarget
from common.core.eviction import longest_idle
from common.core.ledger import Ledger, Occurrence
from common.core.timing import ASK_AGAIN, IdleWheel

SHRINKING = 16  # mappings at most that go for each new one, so that packets are not held up


class Mapped(Occurrence):
    """Of mappings: how they come, and why they go."""

    MADE = "mappings_made"
    EXPIRED = "mappings_expired"  # by silence
    EVICTED = "mappings_evicted"  # the least recently used, for a newer one
    MOVED = "mappings_moved"  # its backend is down or gone: its next datagram finds another
    KILLED = "mappings_killed"


class MappingTable:
    """``mappings`` by their keys. Who is new takes the place of the least recently used one where
    the table is full, however lately that was used: addresses can be forged, and so those that come
    by the thousand push out each other, and not who sends."""

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        ledger: Ledger,
        fast: FastMappings,
        now: float,
    ) -> None:
        # told of each mapping that is over, why, and when
        self.told: Callable[[Mapping, str, float], None] = lambda *_: None
        self.mappings: OrderedDict[bytes, Mapping] = OrderedDict()
        self._fast = fast
        self._ledger = ledger
        self._wheel: IdleWheel[Mapping] = IdleWheel(now)
        self.configure(limits, timeouts)

    def configure(self, limits: Limits, timeouts: Timeouts) -> None:
        """Go by these from now on."""
        self._most = limits.mappings
        self._ask_again = min(ASK_AGAIN, timeouts.udp)

    def open(
        self, key: bytes, service: DatagramService, target: DatagramTarget, now: float
    ) -> Mapping:
        """A mapping that there was none of, counted at its backend; the kernel gets it later."""
        self._ledger.counts[Mapped.MADE] += 1
        return self.take(key, service, target, now)

    def take(
        self, key: bytes, service: DatagramService, target: DatagramTarget, now: float
    ) -> Mapping:
        """The same for one of an earlier run."""
        for _ in range(min(len(self.mappings) - self._most, SHRINKING)):  # it was larger once
            self._evict(now)
        if len(self.mappings) >= self._most:
            mapping = self._evict(now)
            mapping.begin(key, service, target, now)
        else:
            mapping = Mapping(key, service, target, now)
            self._wheel.add(now + min(self._ask_again, service.idle_timeout), mapping)
        self.mappings[key] = mapping
        mapping.hold(now)
        return mapping

    def refer(self, mapping: Mapping, service: DatagramService, target: DatagramTarget) -> None:
        """Have a mapping go by its service as it is configured now."""
        changed = target.steering.dscp_bits != mapping.target.steering.dscp_bits
        mapping.service, mapping.target = service, target
        if changed:
            self._fast.steer(mapping)

    def remove(self, mapping: Mapping, now: float, why: Mapped) -> None:
        """Forget a mapping; ``why`` is counted, and for the access log."""
        self._ledger.counts[why] += 1
        del self.mappings[mapping.key]
        self._fast.forget(mapping)
        mapping.release(now)
        mapping.gone = True
        self.told(mapping, why, now)

    def every(self) -> Iterator[Mapping]:
        """All mappings, little by little; see IdleWheel.items. Some may be ``gone``."""
        return self._wheel.items()

    def expire(self, now: float) -> bool:
        """Forget those whose time is over, some at a time; whether more may be due at once."""
        ended, more = self._wheel.ended(now, self._deadline, self._ask_again)
        for mapping in ended:
            self.remove(mapping, now, Mapped.EXPIRED)
        return more

    def _deadline(self, mapping: Mapping) -> float | None:
        if mapping.gone:
            return None
        self._fast.recall(mapping)
        return mapping.seen + mapping.service.idle_timeout

    def _evict(self, now: float) -> Mapping:
        """Remove the least recently used one, and give it."""
        mapping = longest_idle(self.mappings, now, self._fast.recall, spared=-inf)
        assert mapping is not None, "it is asked of a table with something in it"
        self.remove(mapping, now, Mapped.EVICTED)
        return mapping
