"""A core with time, peers and hostile packets around it: what is fed, and what must hold."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tests.fuzz.mutations import mutated, repair, valid
from tests.fuzz.noise import Noise
from tests.fuzz.place import Place
from tests.unit.accounting import accounted

CONVERSATIONS = 150  # at a time
BETWEEN = 0.1  # of packets, before which one turn ends and another begins
OPERATED = 0.02  # of packets, before which somebody does something to the program
PATIENT = 3600.0  # seconds, after which nothing is left of whoever was silent
REMEMBERED = 400  # packets, for repetition and merging

Fed = tuple[bytes, int]  # a packet and its mark


class Conversation(Protocol):
    """One connection's peers: ``script`` yields what they send."""

    def script(self) -> Iterator[Fed]: ...


class Side(Protocol):
    """The peers of one program."""

    core: Any
    place: Place
    to_say: deque[Fed]  # answers to what was delivered

    def noise(self) -> Noise: ...

    def begin(self) -> Conversation: ...

    def deliver(self, packet: bytes, sound: bool) -> None:
        """What the core sent of its own accord, to those it is for; on a packet that was
        ``sound``, if on any."""

    def passed(self, packet: bytes) -> None:
        """What it let go on."""

    def feeding(self, packet: bytes) -> None:
        """What the core is given next."""

    def operate(self, now: float) -> None:
        """Do what an operator may do, or an agent."""

    def holds(self) -> None:
        """Check what must hold at any time."""

    def is_empty(self) -> bool:
        """Whether nothing is kept of any connection."""

    def bounds(self) -> dict[str, int]:
        """The most that each gauge may show."""


class World:
    """Feeds packets to ``side.core``; all of it follows from ``rng``. Where there is a real
    program as well, ``also`` sends it the same packets, and time is the real one."""

    def __init__(
        self, side: Side, rng: random.Random, also: Callable[[bytes], None] | None = None
    ) -> None:
        self.side = side
        self.core = side.core
        self.rng = rng
        self.now = side.place.now
        self._also = also
        self.fed = self.sound = 0
        self.slowest = 0.0
        self._noise = side.noise()
        self._running: list[Iterator[Fed]] = []
        self._late: deque[Fed] = deque()
        self._recent: deque[Fed] = deque(maxlen=REMEMBERED)
        self._sound = True  # the packet at hand

    def run(self, packets: int) -> None:
        """Feed that many."""
        until = self.fed + packets
        while self.fed < until:
            self._step()

    def _step(self) -> None:
        rng = self.rng
        self._let_time_pass(self._later() if self._also is None else time.monotonic())
        if self._also is None and rng.random() < OPERATED:
            self.side.operate(self.now)
            self._collect()
        if rng.random() < BETWEEN:
            self.core.settle()
            self.core.gather(self.now)
            self._collect()
        draw = rng.random()
        if draw < 0.06:
            self._feed(self._noise.packet(), rng.choice((0, 0, 0x4C330005)))
        elif draw < 0.10 and self._recent:
            self._feed(*rng.choice(self._recent))
        elif draw < 0.13 and self._late:
            self._feed(*self._late.popleft())
        elif draw < 0.3 and self.side.to_say and self._also is None:
            self._feed(*self.side.to_say.popleft())
        else:
            self._converse()

    def _converse(self) -> None:
        rng = self.rng
        if len(self._running) < CONVERSATIONS:
            self._running.append(self.side.begin().script())
        # the youngest more often, so that handshakes are quicker than time-outs
        at = int(len(self._running) * rng.random() ** 0.5)
        sent = next(self._running[at], None)
        if sent is None:
            del self._running[at]
            return
        packet, mark = sent
        draw = rng.random()
        if draw < 0.70:
            self._feed(packet, mark)
        elif draw < 0.85:
            other = rng.choice(self._recent)[0] if self._recent else packet
            packet = mutated(rng, packet, other)
            self._feed(repair(packet) if draw < 0.81 else packet, mark)
        elif draw < 0.90:
            self._late.append(sent)
        elif draw < 0.95:
            self._feed(packet, mark)
            self._feed(packet, mark)
        # else it is lost

    def _let_time_pass(self, now: float) -> None:
        self.now = now
        rounds = 0
        while self.core.next_deadline() <= self.now:
            rounds += 1
            assert rounds < 10_000, "timers that come due for ever"
            self.core.timers(self.now, self.side.place.wall_offset)
            self._collect()

    def _later(self) -> float:
        """A moment after the last packet, now and then much later."""
        rng = self.rng
        now = self.now + rng.expovariate(1 / 0.002)
        draw = rng.random()
        if draw < 0.004:
            now += rng.choice((0.05, 0.2, 0.5, 1.0, 3.0))
        elif draw < 0.00415:
            now += rng.choice((10.0, 130.0, 1000.0))
        return now

    def _feed(self, packet: bytes, mark: int) -> None:
        self._recent.append((packet, mark))
        self._sound = valid(packet)
        self.fed += 1
        self.sound += self._sound
        self.side.feeding(packet)
        began = time.thread_time()  # not what others on the machine take
        verdict = self.core.packet(packet, self.now, mark)
        self.slowest = max(self.slowest, time.thread_time() - began)
        if verdict is not None:
            assert len(verdict) <= 65535
            assert valid(verdict) or not self._sound, verdict.hex()
            self.side.passed(verdict)
        if self.core.out:
            self._collect()
        self._sound = True
        self.check()
        if self._also is not None:
            self._also(packet)

    def _collect(self) -> None:
        for _, packet in self.core.out:
            self.side.deliver(packet, self._sound)
        self.core.out.clear()
        self.core.ledger.notes.clear()
        self.core.ledger.events.clear()
        self.core.ledger.warnings.clear()

    def check(self) -> None:
        """Whether the books are right and the tables within their bounds."""
        assert accounted(self.core) == self.fed
        gauges = self.core.gauges()
        for name, most in self.side.bounds().items():
            assert gauges[name] <= most, name
        self.side.holds()

    def expire(self) -> None:
        """Let everybody be silent, until nothing is left."""
        until = self.now + PATIENT
        while self.now < until and not self.side.is_empty():
            self._let_time_pass(self.now + 5.0)
            self._collect()
            self.check()
        assert self.side.is_empty(), "what nobody uses is kept"

    def stop(self, packets: int) -> None:
        """Take nothing new, for so many packets, and then end."""
        self.core.drain(self.now)
        self.run(packets)
        for _ in self.core.farewell(self.now):
            self._collect()
        self.check()

    def counts(self) -> Counter[str]:
        return Counter(self.core.counts())
