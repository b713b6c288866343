"""A connection's record as a line of the access log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but space, quote, backslash and "="


def as_json(record: Mapping[str, Any]) -> str:
    """An object in one line of ASCII, keys in the record's order."""
    return _dumped(record)


def as_text(record: Mapping[str, Any]) -> str:
    """``key=value`` with spaces between, keys in the record's order; what is None is ``-``, and a
    value with spaces, quotes or other than ASCII characters stands in quotes, as JSON has it."""
    return " ".join(f"{key}={_value(value)}" for key, value in record.items())


def _value(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value != "-" else _dumped(value)
    return _dumped(value)


def _dumped(value: Any) -> str:
    """Without what a terminal would act upon: JSON leaves DEL as it is."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
