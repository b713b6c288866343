"""The lines of JSON that go both ways, and their bounds."""

from __future__ import annotations

import json
from typing import Any

REQUEST_BYTES = 65536  # of a request's line
ANSWER_BYTES = 4 << 20  # of one line of an answer


class MessageError(Exception):
    """A line that is no message; the text says why."""


def encode(message: object) -> bytes:
    """A message's line; raises TypeError or ValueError for what JSON cannot say."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """The command and its arguments; raises MessageError."""
    request = _decode(line)
    command, arguments = request.pop("command", None), request.pop("arguments", {})
    if not isinstance(command, str):
        raise MessageError('a request names a command: {"command": NAME, "arguments": {}}')
    if not isinstance(arguments, dict):
        raise MessageError("a request's arguments are an object")
    if request:
        raise MessageError(f"a request has no {min(request)!r}")
    return command, arguments


def decode_answer(line: bytes) -> tuple[str, Any]:
    """Its kind, "part", "result" or "error", and what it says; raises MessageError."""
    answer = _decode(line)
    if len(answer) != 1 or not answer.keys() <= {"part", "result", "error"}:
        raise MessageError("an answer is a part, a result or an error")
    return next(iter(answer.items()))


def _decode(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise MessageError("not a line of JSON") from None
    if not isinstance(message, dict):
        raise MessageError("a message is a JSON object")
    return message
