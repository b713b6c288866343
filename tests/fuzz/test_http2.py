"""Beginnings of HTTP/2 connections, tampered with, at what reads them: every reason to refuse one
is reached, and nothing that is said changes with the bytes behind it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from balancer.core.request.selector import Selected
from balancer.core.request.verdict import Bad, NeedMore, Reason
from tests.fuzz import http2
from tests.soak import Amount
from tests.unit.request_selectors import LIMIT, SOURCE, selector

SEED = 9113
SELECTORS = [selector(), selector(key=("host", "cookie:sid", "header:X-Tenant"))]
OWN = {reason for reason in Reason if reason.name.startswith("HTTP2_")}
SHARED = {Reason.BAD_METHOD, Reason.BAD_TARGET, Reason.HEAD_TOO_LONG, Reason.SEVERAL_HOSTS}
SHARED |= {Reason.BAD_HOST, Reason.BAD_FIELD_VALUE}


def test_every_reason_is_reached_and_final(amount: Amount, report: Callable[[str], None]) -> None:
    rng, seen, good = random.Random(SEED), Counter[Reason](), 0
    count = amount(3_000, 50_000)
    for number in range(count):
        data = http2.beginning(rng, b"/%d" % number)
        limit = rng.choice((LIMIT, LIMIT, 65535, len(data), rng.randrange(len(data))))
        by = rng.choice(SELECTORS)
        whole = by.inspect(data, limit, SOURCE)
        for end in (rng.randrange(len(data)), len(data) - 1):
            part = by.inspect(data[:end], limit, SOURCE)
            assert part == whole or isinstance(part, NeedMore)
            if isinstance(part, NeedMore) and isinstance(whole, Selected):
                assert by.may_decide(data, end)
        assert isinstance(whole, NeedMore) or by.inspect(data + b"\0", limit, SOURCE) == whole
        good += isinstance(whole, Selected)
        if isinstance(whole, Bad):
            seen[whole.reason] += 1
    report(f"{count:,} beginnings, {good / count:.0%} good; {len(seen)} reasons")
    assert seen.keys() >= OWN | SHARED
    assert good > count / 10
