"""Telling a balancer's host what time it is here; see common.core.clock_exchange."""

from __future__ import annotations

from common.core import clock_exchange
from common.core.handoff import Binding
from common.core.ledger import Outcome
from common.core.segment import MASK, Segment
from common.core.unknown_flows import TokenBucket
from packetbridge.core import credentials
from packetbridge.core.context import Context
from packetbridge.core.entry import Entry

ANSWERS = 20.0  # a second at most: whoever has heard a question can repeat it


class Told(Outcome):
    """What became of a question."""

    CLOCK = "clock_told"
    TOO_OFTEN = "clock_asked_too_often"


class Clock:
    """Answers whoever has the key, of whichever time: that the clocks differ is what it is for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._answers = TokenBucket(ANSWERS, ANSWERS)

    def tell(self, entry: Entry, segment: Segment, option: bytes, now: float) -> None:
        context, ledger = self._context, self._context.ledger
        flow = segment.src + entry.vip + segment.key[8:]
        c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
        binding = Binding(flow, c, b, segment.seq)
        signer, _ = credentials.signed(context, segment, option, binding)
        if signer is None:
            ledger.drop(credentials.Doubt.BAD_MAC, segment.data)
        elif not self._answers.take(now):
            ledger.drop(Told.TOO_OFTEN, segment.data)
        else:
            ledger.took(Told.CLOCK)
            packet = clock_exchange.answer(signer, segment, entry.vip, context.wall)
            context.out.append((entry.mark, packet))
