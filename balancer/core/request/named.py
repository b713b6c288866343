"""Values by name: query parameters, and cookies. Of several of one name the first; nothing is
decoded, and no value is b""."""

import re


class Parameter:
    """A parameter of a request target's query, as forms write it: `?NAME=value&...`."""

    __slots__ = ("_pair",)

    def __init__(self, name: str) -> None:
        self._pair = re.compile(rb"(?:^|&)%b=([^&]*+)" % re.escape(name.encode("ascii")))

    def value(self, target: bytes) -> bytes:
        found = self._pair.search(query_of(target))
        return found[1] if found else b""


class Cookie:
    """A cookie of a Cookie field: `NAME=value; ...`. RFC 6265 section 4.2.1:

    cookie-string = cookie-pair *( ";" SP cookie-pair ), cookie-pair = cookie-name "=" cookie-value

    More or less white space is taken, too; a value's quotation marks belong to it.
    """

    __slots__ = ("_pair",)

    def __init__(self, name: str) -> None:
        name_ = re.escape(name.encode("ascii"))
        self._pair = re.compile(rb"(?:^|;)[ \t]*+%b[ \t]*+=([^;]*+)" % name_)

    def value(self, fields: list[bytes]) -> bytes:
        """Within the values of the Cookie fields: section 5.4 allows a user agent one only."""
        for field in fields:
            found = self._pair.search(field)
            if found:
                return found[1].strip(b" \t")
        return b""


def query_of(target: bytes) -> bytes:
    """RFC 3986 section 3.4: from the first "?" to a "#" or the end, without either."""
    return target.partition(b"#")[0].partition(b"?")[2]
