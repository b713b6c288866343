"""Records on their way to the access log: a queue with a bound."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from common.core.access import AccessRecords
from common.core.ledger import Occurrence, Outcome


@dataclass
class Ended:
    number: int

    def record(self) -> dict[str, Any]:
        return {"number": self.number}


def test_records_come_in_their_order_and_once() -> None:
    counts: Counter[Outcome | Occurrence] = Counter()
    records = AccessRecords(counts)
    assert not records.wanted
    for number in range(5):
        records.add(Ended(number))
    assert [each["number"] for each in records.take(3)] == [0, 1, 2]
    assert [each["number"] for each in records.take(3)] == [3, 4]
    assert records.take(3) == []
    assert not counts


def test_what_nobody_fetches_is_bounded_and_counted() -> None:
    counts: Counter[Outcome | Occurrence] = Counter()
    records = AccessRecords(counts, most=2)
    for number in range(5):
        records.add(Ended(number))
    assert len(records) == 2
    assert counts["access_records_lost"] == 3  # type: ignore[index]
    assert [each["number"] for each in records.take(9)] == [0, 1]
    records.add(Ended(9))
    assert len(records) == 1
