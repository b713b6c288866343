"""Finds fields by name in the header section of an HTTP/1.x request.

Source: RFC 9112 sections 2.2 and 5, RFC 9110 section 5. Only fields that are asked for are looked
at; whether the others are well-formed is for the backend to judge. Of those that are, what a
recipient has to reject or to mend is rejected: it would be a guess which value the backend sees.
"""

import re
from collections.abc import Iterable

from balancer.core.request.verdict import Bad, Reason

Values = dict[bytes, list[bytes]]
"""Fields' values without white space around them, by lower-case name, in the order they came in."""

# RFC 9112 section 2.1: HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ];
# section 2.2: "a recipient MAY recognize a single LF as a line terminator and ignore any preceding
# CR".
_EMPTY_LINE = re.compile(rb"\n\r?\n")


def end_of_head(data: bytes, line_end: int, limit: int) -> int | None:
    """Where the header section ends, its empty line included: within `limit` bytes, or None. The
    request line ends before offset `line_end`."""
    found = _EMPTY_LINE.search(data, line_end - 1, limit)
    return found.end() if found else None


class Finder:
    """Reads the fields of certain names, which it takes in lower case."""

    __slots__ = ("_line",)

    def __init__(self, names: Iterable[str]) -> None:
        # RFC 9112 section 5:  field-line  = field-name ":" OWS field-value OWS
        # section 5.2:         obs-fold    = OWS CRLF RWS ; obsolete line folding
        # Groups: name, white space before the colon, value, the beginning of a fold.
        wanted = b"|".join(re.escape(name.encode("ascii")) for name in sorted(names))
        self._line = re.compile(rb"\n(?i:(%b))([ \t]*+):([^\n]*+)(\n[ \t])?+" % wanted)

    def find(self, data: bytes, line_end: int, end: int) -> Values | Bad:
        """The values in the header section between the offsets `line_end` and `end`."""
        values: Values = {}
        for name, space, value, fold in self._line.findall(data, line_end - 1, end):
            text = value.removesuffix(b"\r")
            fault = _fault(space, text, fold)
            if fault is not None:
                return Bad(fault)
            values.setdefault(name.lower(), []).append(text.strip(b" \t"))
        return values


def joined(values: list[bytes]) -> bytes:
    """RFC 9110 section 5.3: several field lines of one name are one field, their values separated
    by commas, in order. Section 5.6.1.2: empty elements of a list do not count."""
    return b", ".join(filter(None, values))


def _fault(space: bytes, value: bytes, fold: bytes) -> Reason | None:
    # RFC 9112 section 5.1: "A server MUST reject, with a response status code of 400 (Bad Request),
    # any received request message that contains whitespace between a header field name and colon."
    if space:
        return Reason.SPACE_BEFORE_COLON
    # Section 5.2: "A server that receives an obs-fold in a request message [...] MUST either reject
    # the message [...] or replace each received obs-fold with one or more SP octets".
    if fold:
        return Reason.FOLDED_FIELD
    # RFC 9110 section 5.5: "Field values containing CR, LF, or NUL characters are invalid and
    # dangerous". Other control characters are kept, as it allows.
    if b"\0" in value or b"\r" in value:
        return Reason.BAD_FIELD_VALUE
    return None
