"""`trace`: a client's packets as the core sees them, with the reason for every verdict.

While a trace runs, and only then, the loop calls another function in place of the core's, which
calls that and notes what became of the packet. What is noted waits in a ring that the command
empties page by page: when the command is slower than the packets, it learns how many it missed.

Connections that the kernel has are left to Python meanwhile, and given back at the end, also where
whoever traces just goes away.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import Counter, deque
from typing import Any, Generic, TypeVar

from common.adapters.control.server import Command, CommandError, Later, Pages
from common.core.datagram import UDP
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ICMP, TCP
from common.program.control.flows import Client, Flows, which
from common.program.control.flows import client as parse_client
from common.program.control.pages import paged
from common.program.control.table import command
from common.program.loop import PacketLoop

RING = 4096  # packets noted and not taken yet
PAGE = 32  # packets of a page
IDLE = 0.05  # seconds between two looks into an empty ring
HELD = 256  # connections taken from the kernel at most
LONGEST = 86400.0  # seconds

F = TypeVar("F")


class Tracing(Generic[F]):
    """One trace at a time."""

    def __init__(self, loop: PacketLoop, flows: Flows[F]) -> None:
        self._loop = loop
        self._flows = flows
        self._running = False

    def commands(self) -> dict[str, Command]:
        def trace(flow: str, count: int = 0, seconds: float = 0.0) -> Pages:
            return self._trace(flow, count, seconds)

        return {"trace": command(trace)}

    def _trace(self, flow: str, count: int, seconds: float) -> Pages:
        if self._running:
            raise CommandError("a trace is running already: one at a time")
        self._running = True
        trace: Trace[F] | None = None
        try:
            client = yield from self._client(flow)
            trace = Trace(self._loop, self._flows, client)
            for page in paged(self._flows.those(trace.is_ours)):
                for each in page:
                    self._flows.renew(each)
                yield []
            until = time.monotonic() + (seconds or LONGEST)
            while time.monotonic() < until and not 0 < count <= trace.taken:
                page = trace.take(min(PAGE, count - trace.taken) if count else PAGE)
                if page:
                    yield page
                else:
                    yield Later(IDLE)
            return {
                "client": str(client),
                "packets": trace.taken,
                "missed": trace.missed,
                "left_to_the_kernel": trace.left,
            }
        finally:
            self._running = False
            if trace is not None:
                trace.end()

    def _client(self, text: str) -> Pages:
        """The client that is meant, by its address or by one of its flows."""
        try:
            return parse_client(text)
        except CommandError:
            identity = which(text)
        for page in paged(self._flows.those(lambda each: self._flows.identity(each) == identity)):
            for found in page:
                key = self._flows.key(found)
                return Client(key[:4], int.from_bytes(key[8:10], "big"))
            yield []
        raise CommandError(f"there is no flow {text}")


class Trace(Generic[F]):
    """Notes what the loop does with a client's packets, from when it is made until ``end``."""

    def __init__(self, loop: PacketLoop, flows: Flows[F], client: Client) -> None:
        self.taken = self.missed = 0
        self.left = 0  # times that a connection was left to the kernel, as enough had been taken
        self._loop, self._flows, self._client = loop, flows, client
        self._ring: deque[dict[str, Any]] = deque()
        self._held: dict[bytes, F] = {}  # by the client's key
        self._judge = loop.core.packet
        self._noted = False  # what is to be sent next has been
        flows.withhold(self._hold)
        loop.observe(self._packet, self._sent)

    def is_ours(self, flow: F) -> bool:
        return self._client.is_of(self._flows.key(flow))

    def take(self, most: int) -> list[dict[str, Any]]:
        """The oldest of what was noted; ``missed`` is in it where some was left out before."""
        page = [self._ring.popleft() for _ in range(min(most, len(self._ring)))]
        self.taken += len(page)
        return page

    def end(self) -> None:
        """Leave the loop as it was, and give the kernel its connections back."""
        self._loop.observe(None, None)
        self._flows.withhold(None)
        for flow in self._held.values():
            self._flows.renew(flow)

    def _hold(self, flow: F) -> bool:
        """Whether the kernel is to leave a flow to Python."""
        key = self._flows.key(flow)
        if not self._client.is_of(key):
            return False
        if key not in self._held and len(self._held) >= HELD:
            self.left += 1
            return False
        self._held[key] = flow
        return True

    def _packet(self, data: bytes, now: float, mark: int) -> bytes | None:
        """In place of the core's."""
        if not self._concerns(data):
            return self._judge(data, now, mark)
        core = self._loop.core
        ledger = core.ledger
        before = core.counts().copy()
        events, verbose, ledger.verbose = len(ledger.events), ledger.verbose, True
        note: dict[str, Any] = {"time": now + self._loop.offset, "in": _text(data), "mark": mark}
        try:
            verdict = self._judge(data, now, mark)
        except Exception:
            self._note(note | {"verdict": "drop", "reasons": ["internal_error"]})
            raise
        finally:
            ledger.verbose = verbose
        why = ledger.events[events:]
        if not verbose:
            del ledger.events[events:]
        after = core.counts()
        self._note(
            note
            | {
                "verdict": _verdict(data, verdict),
                "sent": [_text(packet) for _, packet in core.out],
                "reasons": [str(name) for name in after if _has_grown(name, before, after)],
                "why": why,
            }
        )
        self._noted = bool(core.out)
        return verdict

    def _sent(self, out: list[tuple[int, bytes]]) -> None:
        """What is about to be sent: at no packet, unless it is in a note already."""
        if self._noted:
            self._noted = False
            return
        sent = [_text(packet) for _, packet in out if self._concerns(packet)]
        if sent:
            self._note({"time": time.monotonic() + self._loop.offset, "sent": sent})

    def _note(self, note: dict[str, Any]) -> None:
        if len(self._ring) >= RING:
            self.missed += 1
            self._ring[-1]["missed"] = self._ring[-1].get("missed", 0) + 1
        else:
            self._ring.append(note)

    def _concerns(self, packet: bytes) -> bool:
        """Whether a packet is of the client's, whichever way it goes."""
        if len(packet) < 28:
            return False
        at = (packet[0] & 15) * 4
        if packet[9] == ICMP:
            return self._concerns(packet[at + 8 :])  # what it quotes
        if packet[9] not in (TCP, UDP):
            return False
        key = packet[12:20] + packet[at : at + 4]
        is_of = self._client.is_of
        if is_of(key) or is_of(key[4:8] + key[:4] + key[10:12] + key[8:10]):
            return True
        other = self._flows.other_side(key)
        return other is not None and is_of(other)


def _has_grown(
    name: Outcome | Occurrence,
    before: Counter[Outcome | Occurrence],
    after: Counter[Outcome | Occurrence],
) -> bool:
    """Whether something was counted by that name, other than bytes."""
    return after[name] > before[name] and not name.endswith("_bytes")


def _verdict(data: bytes, verdict: bytes | None) -> str:
    if verdict is None:
        return "drop"
    return "unchanged" if verdict is data else _text(verdict)


def _text(packet: bytes) -> str:
    return b64encode(packet).decode()
