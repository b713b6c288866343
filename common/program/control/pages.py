"""Cutting a long answer into pages, each so short that no packet waits long for it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from typing import Any

ITEMS = 256  # of a page
SECONDS = 0.002  # that a page may take to be made
LOOKS = 32  # items between two looks at the clock


def paged(items: Iterable[Any], result: Any = None) -> Generator[list[Any], None, Any]:
    """Pages of the items that are not None (those only take their time), then the result."""
    page: list[Any] = []
    began = time.monotonic()
    for number, item in enumerate(items, 1):
        if item is not None:
            page.append(item)
        if len(page) >= ITEMS or (number % LOOKS == 0 and time.monotonic() - began >= SECONDS):
            yield page
            page, began = [], time.monotonic()
    yield page
    return result
