"""After a restart: the mappings that the kernel went on steering by are the program's again, each
as soon as one of its datagrams comes up to Python, and all of them little by little."""

from __future__ import annotations

from balancer.core.context import Context
from balancer.core.datagrams.fast_path import FastDatagrams, FastMappings
from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import fitting
from balancer.core.datagrams.table import MappingTable

AT_ONCE = 32  # mappings taken in one go, so that packets are not held up


class MappingAdoption:
    """Over once all have been looked at: ``pending`` is false from then on."""

    def __init__(self, context: Context, table: MappingTable, fast: FastMappings) -> None:
        self._context = context
        self._table = table
        self._fast = fast
        self.pending = True

    def step(self, now: float) -> None:
        """Take some more."""
        formers = self._fast.formers(AT_ONCE)
        self.pending = formers is not None
        for former in formers or ():
            if former.key not in self._table.mappings:
                self.find(former.key, now)

    def find(self, key: bytes, now: float) -> Mapping | None:
        """The mapping of that key, which the table has none of; None, and no record either, where
        its service or bridge is not configured any more, or has another kind of key."""
        former = self._fast.former(key)
        if former is None:
            return None
        counts = self._context.ledger.counts
        found = fitting(self._context.catalogue.datagram_services, key, former.bridge)
        if found is None or not found[1].member.up:
            self._fast.drop(key)
            counts[FastDatagrams.NOT_ADOPTED] += 1
            return None
        mapping = self._table.take(key, *found, now)
        mapping.seen = mapping.placed = min(former.seen or now, now)
        mapping.fast = True
        self._fast.steer(mapping)  # with the DSCP that is configured now
        counts[FastDatagrams.ADOPTED] += 1
        return mapping
