"""After a restart: the connections that the kernel went on steering become flows again.

Each as soon as one of its packets comes up to Python, and all of them little by little, so that
idle ones expire.
"""

from __future__ import annotations

from balancer.core import cookie
from balancer.core.context import Context
from balancer.core.fast_path import Fast, Former
from balancer.core.flow import Flow
from common.core.segment import MASK

LONG_AGO = 600.0  # seconds: when it was handed over is not known, but a handoff is not repeated now
AT_ONCE = 32  # flows taken in one go, so that packets are not held up


class Adoption:
    """Over once all have been looked at: ``pending`` is false from then on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.pending = True

    def find(self, key: bytes, now: float) -> Flow | None:
        """The flow of a packet that the table knows none for."""
        former = self._context.fast.former(key)
        return None if former is None else self._take(former, now)

    def step(self, now: float) -> None:
        """Take some more."""
        formers = self._context.fast.formers(AT_ONCE)
        self.pending = formers is not None
        for former in formers or ():
            if self._context.table.find(former.key) is None:
                self._take(former, now)

    def _take(self, former: Former, now: float) -> Flow | None:
        """A flow as of before; None, and no record either, where its service or bridge is not
        configured any more, or the table is full."""
        service = self._context.catalogue.services.get(former.key[4:8] + former.key[10:12])
        target = None if service is None else service.target_at(former.bridge)
        flow = None
        if service is not None and target is not None:
            c = (former.first - 1) & MASK
            flow = Flow(former.key, service, c, former.b, min(former.seen or now, now))
            flow.target, flow.handoff_bytes = target, former.handoff_bytes
            flow.handed_at = now - LONG_AGO
            flow.is_http = None
            if former.suspect:  # what answers the SYN may be still to come
                flow.suspect_until = now + cookie.LIFETIME
            if self._context.table.adopt(flow):
                flow.hold(now)
                self._context.ledger.counts[Fast.ADOPTED] += 1
                flow.fast = True
                self._context.fast.steer(flow)  # with the DSCP that is configured now
                return flow
        self._context.fast.drop(former.key)
        self._context.ledger.counts[Fast.NOT_ADOPTED] += 1
        return None
