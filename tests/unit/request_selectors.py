"""Selectors of services for tests, and what they make of bytes."""

from __future__ import annotations

from typing import Any

from balancer.core.config import Backend, Pool, Route
from balancer.core.request.selector import Selected, Selector
from balancer.core.request.verdict import Bad, Reason

LIMIT = 16384
SOURCE = bytes((192, 0, 2, 7))
BACKENDS = (Backend("one", "10.0.0.11"),)


def pool(name: str = "p", **settings: Any) -> Pool:
    return Pool(name, BACKENDS, **settings)


def selector(*routes: Route, default: str | None = "p", **settings: Any) -> Selector:
    """Of a service with these routes; all its pools have these settings."""
    names = dict.fromkeys([route.pool for route in routes] + ([default] if default else []))
    return Selector(routes, [pool(name, **settings) for name in names], default)


def selected(chosen_by: Selector, data: bytes) -> Selected:
    answer = chosen_by.inspect(data, LIMIT, SOURCE)
    assert isinstance(answer, Selected), answer
    return answer


def reason(chosen_by: Selector, data: bytes) -> Reason:
    answer = chosen_by.inspect(data, LIMIT, SOURCE)
    assert isinstance(answer, Bad), answer
    return answer.reason


def request(*fields: bytes, line: bytes = b"GET /a HTTP/1.1") -> bytes:
    return b"\r\n".join((line, *fields, b"", b""))
