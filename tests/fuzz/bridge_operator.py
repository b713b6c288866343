"""Who runs a bridge, and the process beside it: what they do at any moment."""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import Any

from packetbridge.core import config
from packetbridge.core.checking import Check
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.flow import Flow
from packetbridge.core.health import ServerHealth, who
from packetbridge.core.states import State
from tests.fuzz.place import Place

MARK = 0x4C330000
AMONG = 50  # connections, the oldest
KEPT = 100  # ways that are not configured any more


class Ways:
    """Configurations of a bridge's ways in: most are as the first."""

    def __init__(
        self, rng: random.Random, place: Place, backend: config.Backend, host: dict[str, bool]
    ) -> None:
        self._rng, self._place, self._backend, self._host = rng, place, backend, host

    def first(self) -> list[Entry]:
        return self._entries([self._backend] * len(self._place.vips), self._place.vips, self._host)

    def any(self) -> tuple[list[config.Backend], list[Entry]]:
        rng = self._rng
        vips = dict(self._place.vips)
        if rng.random() < 0.1:
            del vips[rng.choice(list(vips))]
        host = dict(self._host)
        if rng.random() < 0.1:
            host["local"] = not host["local"]
        backends = [replace(self._changed(), dscps=(dscp,)) for dscp in vips]
        return backends, self._entries(backends, vips, host)

    def _changed(self) -> config.Backend:
        rng = self._rng
        return replace(
            self._backend,
            server_port=self._backend.server_port + (rng.random() < 0.15),
            connect=rng.choice((0.05, 1.0, 3.0, 3.0, 10.0)),
            on_down=rng.choice(("keep", "reset")),
            hold_handshake=rng.choice(("auto", "on", "off")),
            source=rng.choice((*(self._backend.source,) * 6, "bridge")),
            check=Check(rise=rng.choice((1, 2)), fall=rng.choice((1, 2))),
        )

    def _entries(
        self, backends: list[config.Backend], vips: dict[int, str], host: dict[str, bool]
    ) -> list[Entry]:
        both = zip(backends, vips.items(), strict=True)
        return [
            Entry(each, dscp, vip, MARK, **host)
            for backend, (dscp, vip) in both
            for each in (backend, replace(backend, **OF_UDP))
        ]


# What makes a backend one for datagrams, which has no settings of connections.
OF_UDP: dict[str, Any] = {
    "protocol": "udp",
    "handoff": False,
    **{key: config.Backend.__dataclass_fields__[key].default for key in config.OF_CONNECTIONS},
}


class BridgeOperator:
    """``known`` are ways that there have been."""

    def __init__(self, rng: random.Random, core: Bridge, ways: Ways, limits: config.Limits) -> None:
        self._rng, self._core, self._ways, self._limits = rng, core, ways, limits
        self._health = ServerHealth()
        self._backends: list[config.Backend] = []
        self.known: deque[Entry] = deque(maxlen=KEPT)
        core.access.wanted = rng.random() < 0.8

    def act(self, now: float) -> None:
        """One thing."""
        acts = (self._reload, 2), (self._check, 6), (self._drain, 3), (self._end, 3)
        acts = (*acts, (self._look, 3), (self._trace, 1))
        which, weights = zip(*acts, strict=True)
        self._rng.choices(which, weights)[0](now)

    def _reload(self, now: float) -> None:
        rng, core = self._rng, self._core
        self.known.extend(core.entries)
        self._backends, entries = self._ways.any()
        self._health.follow(self._backends, now)
        timeouts = config.Timeouts(
            idle=rng.choice((60.0, 900.0)),
            linger=rng.choice((0.0, 10.0)),
            udp=rng.choice((5.0, 60.0)),
        )
        core.reconfigure(entries, self._limits, timeouts)
        former = core.former()
        assert not {id(each) for each in former} & {id(each) for each in core.entries}
        assert all(each.removed and each.figures.flows for each in former)
        if rng.random() < 0.2:
            core.access.wanted = not core.access.wanted

    def _check(self, now: float) -> None:
        rng, core = self._rng, self._core
        if not self._backends:
            return
        backend = rng.choice(self._backends)
        well = rng.random() < 0.85
        judge = self._health.judge(backend)
        assert judge is not None
        change = self._health.checked(who(backend), well, "" if well else "refused", now)
        if change is None:
            return
        assert change.up is judge.up
        name = f"{backend.address}:{backend.port}"
        if rng.random() < 0.8:
            name += f"/{backend.dscps[0]}"
        core.mark_server(name, change.up, change.reason, now)

    def _drain(self, now: float) -> None:
        entry = self._rng.choice(self._core.entries)
        self._core.drain_entry(entry.name, self._rng.random() < 0.15)
        for ask in (
            lambda: self._core.drain_entry("nobody", True),
            lambda: self._core.mark_server("203.0.113.20:80/63", False, "", now),
        ):
            try:
                ask()
            except KeyError:
                continue
            raise AssertionError("there is no such way in")

    def _end(self, now: float) -> None:
        mapping = next(self._core.datagrams.every(now), None)
        if mapping is not None and self._rng.random() < 0.3:
            self._core.end(mapping, now)
            self._core.end(mapping, now)
            return
        flow = self._flow()
        if flow is not None:
            self._core.end(flow, now)
            assert flow.state is State.GONE
            self._core.end(flow, now)  # which is over

    def _flow(self) -> Flow | None:
        there = list(islice(self._core.table.every(), AMONG))
        return self._rng.choice(there) if there else None

    def _trace(self, now: float) -> None:
        fast, flow = self._core.fast, self._flow()
        fast.withhold(lambda each: each is flow)
        if flow is not None:
            fast.recall(flow)
            fast.renew(flow)
        fast.settle()
        fast.withhold(None)
        mappings = self._core.datagrams.mappings
        mappings.withhold(lambda _: True)
        for mapping in islice(self._core.datagrams.every(now), AMONG):
            mappings.renew(mapping)
        mappings.withhold(None)

    def _look(self, now: float) -> None:
        core = self._core
        for record in core.access.take(self._rng.choice((1, 1000))):
            json.dumps(record, allow_nan=False)
        assert core.remaining() <= len(core.table)
        core.rekey([self._core._context.keys.signing], now)
