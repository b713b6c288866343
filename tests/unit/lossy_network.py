"""A network in the mind: both cores, a client and a server with small TCPs, and links that lose,
repeat and reorder. Time is simulated; a run is the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from common.core import handoff, tcp_options
from common.core.segment import ACK, MASK, RST, SYN, Segment, before, build
from tests.unit import balancer_stage, bridge_stage

CLIENT, VIP = bytes([198, 51, 100, 7]), bytes([192, 0, 2, 10])
BRIDGE, SERVER = bytes([203, 0, 113, 20]), bytes([203, 0, 113, 30])
RESPONSE = bytes(range(256)) * 20
SIZE = 1000  # bytes of a segment
PATIENCE = 0.25  # seconds to the first retransmission


class Network:
    """``loss`` is the share of packets lost, of packets repeated and of packets held up, each;
    ``backend`` changes the bridge's configuration. The first ``handoffs_to_lose`` to the bridge are
    lost in any case."""

    def __init__(self, seed: int, loss: float, stamps: bool = True, **backend: Any) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.now = 5000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.balancer = balancer_stage.Stage(bridges=balancer_stage.BRIDGES[:1])
        self.bridge = bridge_stage.Stage(**backend)
        for entry in self.bridge.entries:
            # learned before, from another connection
            entry.no_timestamps_until = 0.0 if stamps else float("inf")
        self.client = Client(self)
        self.server = Server(self, stamps)
        self.resets: list[Segment] = []
        self.handoffs_to_lose = 0

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heappush(self._events, (self.now + seconds, next(self._order), act))

    def run(self, seconds: float, until: Callable[[], bool]) -> None:
        for core in (self.balancer.core, self.bridge.core):
            self._timers(core)
        end = self.now + seconds
        while self._events and not until():
            self.now, _, act = heappop(self._events)
            if self.now > end:
                return
            act()
            self._collect()

    def send(self, packet: bytes) -> None:
        """Put a packet on its way by its addresses, as the kernels between would."""
        draw = self.random.random
        if self.handoffs_to_lose and packet[16:20] == BRIDGE and _is_handoff(packet):
            self.handoffs_to_lose -= 1
            return
        for _ in range(1 + (draw() < self.loss)):
            if draw() >= self.loss:
                delay = 0.005 + (draw() * 0.02 if draw() < self.loss else 0)
                self.later(delay, lambda: self._arrive(packet))

    def _arrive(self, packet: bytes) -> None:
        source, destination = packet[12:16], packet[16:20]
        stages = {VIP: self.balancer, BRIDGE: self.bridge}
        if destination in stages:
            stage = stages[destination]
            stage.now = self.now
            verdict = stage.packet(packet)
            if verdict is not None:
                self.send(verdict)
        elif destination == SERVER:
            self.server.take(Segment(packet))
        elif source == SERVER:
            self.bridge.now = self.now
            verdict = self.bridge.packet(packet, bridge_stage.MARK | 5)
            if verdict is not None:
                self.send(verdict)
        else:
            self.client.take(Segment(packet))

    def _collect(self) -> None:
        for core in (self.balancer.core, self.bridge.core):
            packets = list(core.out)
            core.out.clear()
            for _, packet in packets:
                if packet[33] & RST and packet[16:20] == CLIENT:
                    self.resets.append(Segment(packet))
                self.send(packet)

    def _timers(self, core: object) -> None:
        core.timers(self.now, balancer_stage.WALL - 5000.0)  # type: ignore[attr-defined]
        self.later(0.005, lambda: self._timers(core))


def _is_handoff(packet: bytes) -> bool:
    return handoff.find(Segment(packet).options) is not None


class Peer:
    """One end: sends ``todo`` reliably, gathers what comes. ``una`` and ``reached`` are positions
    in what it has sent and received."""

    def __init__(self, network: Network, ends: bytes, isn: int) -> None:
        self.network, self.ends, self.isn = network, ends, isn
        self.peer_isn = -1
        self.stamps = True
        self.todo = b""
        self.una = self.sent = 0
        self.received: dict[int, int] = {}
        self.reached = 0
        self.echo = 0
        self.reset = False
        self._tries = 0
        self._timer = 0

    @property
    def gathered(self) -> bytes:
        return bytes(self.received[n] for n in range(self.reached))

    def emit(self, flags: int, at: int = 0, payload: bytes = b"", options: bytes = b"") -> None:
        ends = self.ends
        seq = self.isn + (0 if flags & SYN else 1 + at)
        ack = self.peer_isn + 1 + self.reached if flags & ACK else 0
        stamps = tcp_options.encode_timestamps(self.clock(), self.echo) if self.stamps else b""
        packet = build(
            ends[:4],
            ends[4:8],
            int.from_bytes(ends[8:10], "big"),
            int.from_bytes(ends[10:12], "big"),
            seq=seq & MASK,
            ack=ack & MASK,
            flags=flags,
            window=500,
            options=options or stamps,
            payload=payload,
        )
        self.network.send(packet)

    def clock(self) -> int:
        return int(self.network.now * 1000) + self.isn & MASK

    def push(self, most: int | None = None) -> None:
        """Send what has not been sent yet, ``most`` bytes of it, and see that it arrives."""
        end = len(self.todo) if most is None else min(len(self.todo), self.sent + most)
        for at in range(self.sent, end, SIZE):
            self.emit(ACK, at, self.todo[at : min(at + SIZE, end)])
        self.sent = max(self.sent, end)
        self._rearm()

    def _rearm(self) -> None:
        self._timer += 1
        mark = self._timer

        def again() -> None:
            if mark == self._timer and self.una < self.sent and self._tries < 100:
                self._tries += 1
                self.emit(ACK, self.una, self.todo[self.una : min(self.una + SIZE, self.sent)])
                self._rearm()

        self.network.later(PATIENCE * 2 ** min(self._tries, 4), again)

    def take_data(self, segment: Segment) -> None:
        at = (segment.seq - self.peer_isn - 1) & MASK
        if self.stamps and not self._is_recent(segment, at):
            self.emit(ACK, self.sent)
            return
        acked = (segment.ack - self.isn - 1) & MASK
        if self.una < acked <= self.sent:
            self.una, self._tries = acked, 0
            self._rearm()
        if at < 1 << 31:
            self.received |= {at + n: byte for n, byte in enumerate(segment.payload)}
        while self.reached in self.received:
            self.reached += 1
        if segment.payload:
            self.emit(ACK, self.sent)

    def _is_recent(self, segment: Segment, at: int) -> bool:
        """RFC 7323 sections 3.2 and 5.3: without the option, or from the past, it is dropped."""
        stamps = tcp_options.timestamps(segment.options)
        if stamps is None or before(stamps[0], self.echo):
            return False
        if at <= self.reached:
            self.echo = stamps[0]
        return True


class Client(Peer):
    """Sends the pieces of ``request`` with a pause after each."""

    def __init__(self, network: Network) -> None:
        ends = CLIENT + VIP + (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")
        super().__init__(network, ends, network.random.getrandbits(32))
        self.pieces: list[tuple[int, float]] = []

    def start(self, tries: int = 0) -> None:
        if self.peer_isn < 0:
            offer = tcp_options.encode_offer(1460, 8, True, (self.clock(), 0))
            self.emit(SYN, options=offer)
            self.network.later(1.0, lambda: self.start(tries + 1))

    def dribble(self) -> None:
        if self.pieces:
            size, pause = self.pieces.pop(0)
            self.push(size)
            self.network.later(pause, self.dribble)
        else:
            self.push()

    def take(self, segment: Segment) -> None:
        if segment.flags & RST:
            self.reset |= (segment.seq - self.peer_isn - 1 - self.reached) & MASK == 0
        elif segment.flags & SYN:
            if self.peer_isn < 0:
                self.peer_isn = segment.seq
                stamps = tcp_options.timestamps(segment.options)
                self.echo = 0 if stamps is None else stamps[0]
                self.emit(ACK)
                self.dribble()
        elif self.peer_isn >= 0:
            self.take_data(segment)


class Server(Peer):
    """Answers once a whole head has come. Like Linux, it takes the first ACK only with the exact
    echo of its SYN-ACK."""

    def __init__(self, network: Network, stamps: bool) -> None:
        super().__init__(network, bytes(12), network.random.getrandbits(32))
        self.lacks_stamps = not stamps
        self.connections = 0
        self.established = False
        self.promised = 0

    def take(self, segment: Segment) -> None:
        if segment.flags & RST:
            if self.established:
                self.reset = True
            self.peer_isn = -1  # back to listening
        elif segment.flags & SYN:
            if segment.seq != self.peer_isn:
                self.peer_isn = segment.seq
                offered = tcp_options.timestamps(segment.options)
                self.stamps = offered is not None and not self.lacks_stamps
                self.echo = 0 if offered is None else offered[0]
                key = segment.key
                self.ends = key[4:8] + key[:4] + key[10:12] + key[8:10]
                self.promised = self.clock()
                self._syn_ack()
        elif self.peer_isn >= 0:
            stamps = tcp_options.timestamps(segment.options)
            if not self.established:
                if self.stamps and (stamps is None or stamps[1] != self.promised):
                    return
                self.connections += 1
                self.established = True
            self.take_data(segment)
            if not self.todo and b"\r\n\r\n" in self.gathered:
                self.todo = RESPONSE
                self.push()

    def _syn_ack(self) -> None:
        if not self.established and self.peer_isn >= 0:
            stamps = (self.promised, self.echo) if self.stamps else None
            offer = tcp_options.encode_offer(1460, 9, True, stamps)
            self.emit(SYN | ACK, options=offer)
            self.network.later(1.0, self._syn_ack)
