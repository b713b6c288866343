"""A request as HTTP/2 says it: from a compressed header section to method, target and fields.

Source: RFC 7541 (HPACK), RFC 9113 section 8. What section 8.1.1 calls malformed is refused where it
would be a guess which request the backend sees; the rest is for the backend to judge.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hpack import Decoder, HPACKError, OversizedHeaderListError

from balancer.core.request.http2.frames import Section, first_section
from balancer.core.request.line import Request, request_of
from balancer.core.request.verdict import Bad, NeedMore, Reason

MAX_LIST: Final = 65536
"""Bytes of a header section that is not compressed any more, by RFC 9113 section 6.5.2's count:
each field's name and value and 32 more."""

TABLE: Final = 4096
"""Bytes of the encoder's dynamic table: RFC 9113 section 6.5.2, as nobody has asked for another."""

# RFC 7541 section 6.3: an update of the table's size is 001 and an integer (section 5.1); section
# 4.2: at the beginning, once or twice. Thousands would keep the decoder busy.
_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*+[\x00-\x7f]){3}")
# RFC 9113 section 8.2.1: "A field name MUST NOT contain characters in the ranges 0x00-0x20,
# 0x41-0x5a, or 0x7f-0xff", and a colon only where it begins a pseudo-header field.
_NAME = re.compile(rb"[\x21-\x39\x3b-\x40\x5b-\x7e]+")
# Section 8.3.1. RFC 8441's :protocol needs a server that has offered it.
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})

Fields = list[tuple[bytes, bytes]]


class Message(NamedTuple):
    """``request`` as if it had come in HTTP/1: its target is the path with its query, or with
    CONNECT the authority. ``authority`` and ``scheme`` are b"" where there is none; ``fields`` the
    others, in their order."""

    request: Request
    scheme: bytes
    authority: bytes
    fields: Fields


def inspect(data: bytes, limit: int) -> Message | NeedMore | Bad:
    """What the first bytes of a connection ask for that begins with HTTP/2's preface.

    Its first header section must end within ``limit`` bytes. Final: more bytes never change another
    answer than NeedMore. Never raises, whatever the bytes.
    """
    section = first_section(data[: max(limit, 0)], limit)
    if isinstance(section, NeedMore) and len(data) >= limit:
        return Bad(Reason.HEAD_TOO_LONG)
    if not isinstance(section, Section):
        return section
    fields = _decoded(section)
    return fields if isinstance(fields, Bad) else _message(fields, section.end)


def _decoded(section: Section) -> Fields | Bad:
    if _UPDATES.match(section.block):
        return Bad(Reason.HTTP2_BAD_HPACK)
    decoder = Decoder(max_header_list_size=MAX_LIST)
    decoder.max_allowed_table_size = TABLE
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(section.block, True)]
    except OversizedHeaderListError:
        return Bad(Reason.HTTP2_FIELDS_TOO_LARGE)
    except HPACKError:
        return Bad(Reason.HTTP2_BAD_HPACK)


def _message(decoded: Fields, end: int) -> Message | Bad:
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    for name, value in decoded:
        if not name.startswith(b":"):
            if not _NAME.fullmatch(name):
                return Bad(Reason.HTTP2_BAD_FIELD_NAME)
            fields.append((name, value))
        elif name not in _PSEUDO:
            return Bad(Reason.HTTP2_PSEUDO_UNKNOWN)
        # Section 8.3: "All pseudo-header fields sent in a request MUST appear in the header section
        # before all regular field lines", and each once.
        elif fields or name in pseudo:
            return Bad(Reason.HTTP2_PSEUDO_LATE if fields else Reason.HTTP2_PSEUDO_REPEATED)
        else:
            pseudo[name] = value
    request = _request(pseudo, end)
    if isinstance(request, Bad):
        return request
    return Message(request, pseudo.get(b":scheme", b""), pseudo.get(b":authority", b""), fields)


def _request(pseudo: dict[bytes, bytes], end: int) -> Request | Bad:
    method = pseudo.get(b":method", b"")
    # Section 8.5: CONNECT has an authority in place of scheme and path.
    wanted = (b":authority",) if method == b"CONNECT" else (b":scheme", b":path")
    if not method or not all(pseudo.get(name) for name in wanted):
        return Bad(Reason.HTTP2_PSEUDO_MISSING)
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo:
            return Bad(Reason.BAD_TARGET)
        return request_of(method, pseudo[b":authority"], end)
    # Section 8.3.1: the absolute path and the query, or "*" with OPTIONS. A host is not in it.
    path = pseudo[b":path"]
    if not path.startswith(b"/") and path != b"*":
        return Bad(Reason.BAD_TARGET)
    return request_of(method, path, end)
