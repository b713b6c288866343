"""What a bridge says of its servers at /health, and what a balancer makes of it.

The bridge answers 200 with a JSON object: ``status`` "ok", ``program`` "packetbridge", and
``backends``, a list of objects, one for each of its ways in; `Entry` has their keys. Keys that are
not known are passed over, so that either side may be the newer one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from common.core.agent_settings import BridgeCheck, EntryName, Member

MOST_ANSWER = 4 << 20  # bytes: some ten thousand entries
MOST_WORDS = 200  # characters of a text that is passed on

Way = tuple[str, EntryName]  # with the bridge's address
Result = tuple[tuple[Any, ...], bool, str]  # a target; whether it is well; why not


class AnswerError(Exception):
    """An answer that is no bridge's; says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A way in: ``address``, ``port`` and ``protocol`` with each of ``dscps``, to ``server``
    ("ADDR:PORT"). ``handoff``: whether its connections begin with one; None: not said.

    ``up`` and ``reason`` are what the bridge's own check says, ``up`` where it has none. Counted
    since the bridge started: connections ``opened`` to the server, ``refused`` by it, left
    unanswered (``silent``), and ``reset`` by it once they were open.
    """

    address: str
    port: int
    dscps: tuple[int, ...]
    server: str
    up: bool = True
    reason: str = ""
    opened: int = 0
    refused: int = 0
    silent: int = 0
    reset: int = 0
    protocol: str = "tcp"
    handoff: bool | None = None

    @property
    def ways(self) -> Iterator[Way]:
        """What a balancer knows it by."""
        return ((self.address, (self.port, dscp, self.protocol)) for dscp in self.dscps)


HEAD, LIST = {"status": "ok", "program": "packetbridge"}, "backends"


def encode(entries: Iterable[Entry]) -> dict[str, Any]:
    """The answer, for JSON."""
    return {**HEAD, LIST: [encode_entry(entry) for entry in entries]}


def encode_entry(entry: Entry) -> dict[str, Any]:
    """An item of its list."""
    return {key: getattr(entry, key) for key in _KEYS}


def decode(answer: bytes) -> list[Entry]:
    """The entries in an answer's body; raises AnswerError for what is no such answer."""
    try:
        table = json.loads(answer)
    except (ValueError, RecursionError):
        raise AnswerError("the answer is not JSON") from None
    backends = table.get(LIST) if isinstance(table, dict) else None
    if not isinstance(backends, list):
        raise AnswerError("the answer lists no backends: is that a packetbridge?")
    return [_entry(backend) for backend in backends]


_KEYS = tuple(field.name for field in fields(Entry))
_NUMBERS = ("opened", "refused", "silent", "reset")


def _entry(table: Any) -> Entry:
    try:
        address, port, dscps, up = (table[key] for key in ("address", "port", "dscps", "up"))
        numbers = {key: table.get(key, 0) for key in _NUMBERS}
    except (TypeError, KeyError, AttributeError):
        raise AnswerError("the answer names a backend without address, port, dscps or up") from None
    whole = [port, *numbers.values(), *(dscps if isinstance(dscps, list) else [None])]
    if (
        not isinstance(address, str)
        or not isinstance(up, bool)
        or not all(type(number) is int and number >= 0 for number in whole)
    ):
        raise AnswerError("the answer names a backend whose address, port, dscps or up is none")
    server, reason = (str(table.get(key, ""))[:MOST_WORDS] for key in ("server", "reason"))
    protocol = str(table.get("protocol", "tcp"))  # older bridges have no other,
    handoff = table.get("handoff")  # and do not say this
    if not isinstance(handoff, bool):
        handoff = None
    kind = {"protocol": protocol, "handoff": handoff}
    return Entry(address, port, tuple(dscps), server, up, reason, **numbers, **kind)


class BridgeView:
    """A bridge as its answers show it, one after the other, and what that says of the members."""

    def __init__(self, check: BridgeCheck) -> None:
        self.check = check
        self._before: Mapping[Way, Entry] = {}

    def answered(self, entries: Iterable[Entry]) -> list[Result]:
        """The members' results by an answer."""
        now = {way: entry for entry in entries for way in entry.ways}
        results = [
            (member.target, not reason, reason)
            for member in self.check.members
            for reason in (self._trouble(member, now),)
        ]
        self._before = now
        return results

    def failed(self, reason: str) -> list[Result]:
        """The members' results where there was no answer, or none that can be used."""
        return [(member.target, False, reason) for member in self.check.members]

    def _trouble(self, member: Member, now: Mapping[Way, Entry]) -> str:
        """What is wrong with the member, '' for nothing."""
        for name in member.entries:
            way = (member.bridge, name)
            entry = now.get(way)
            if entry is None:
                port, dscp, protocol = name
                udp = "UDP " if protocol == "udp" else ""
                return f"the bridge has no backend for {udp}port {port} with DSCP {dscp}"
            if entry.handoff is (name in member.unread):
                return _at_odds(entry)
            if not entry.up:
                return f"server {entry.server}: {entry.reason or 'down'}"
            if (before := self._before.get(way)) and (trouble := _traffic(before, entry)):
                return f"server {entry.server}: {trouble}"
        return ""


def _at_odds(entry: Entry) -> str:
    """Of a way in whose connections begin otherwise than the balancer's service has them."""
    if entry.handoff:
        return f"the bridge awaits handoffs at port {entry.port}; right would be handoff = false"
    return f"the bridge takes no handoffs at port {entry.port}; right would be handoff = true"


def _traffic(before: Entry, entry: Entry) -> str:
    """What connections have met since the last answer, if half of them or more met it; '' where
    there were none, or the bridge has begun to count anew."""
    opened, refused, silent, reset = (
        getattr(entry, key) - getattr(before, key) for key in _NUMBERS
    )
    if min(opened, refused, silent, reset) < 0:
        return ""
    tried = opened + refused + silent
    bad = refused + silent + reset
    if not bad or bad * 2 < tried:
        return ""
    return f"of {tried} connections {refused} refused, {silent} unanswered, {reset} reset"
