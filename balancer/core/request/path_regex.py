"""Regular expressions of paths, many at once, in a time that no path can make long.

They are RE2's: an automaton, which looks at each byte once and at all expressions together, and has
no back-references and no look-around. So nested quantifiers such as `(a*)*b` need not be refused;
what a hostile path can still do is to have a state made for each of its bytes, which takes the
longer the larger the expressions are. Hence the two bounds.
"""

from collections.abc import Sequence

import re2

LONGEST_PATH = 2048
"""Bytes; a longer path matches nothing."""

LARGEST = 500
"""RE2's instructions in one expression: some hundred characters, or repetitions of one."""

# Bytes that all expressions of a service may occupy: a thousand of the largest, and their states.
_MEMORY = 64 << 20


def check(text: str) -> None:
    """Raise ValueError unless the text, in ASCII, is a regular expression that can be used."""
    pattern = text.encode("ascii")
    try:
        size: int = re2.compile(pattern, _options()).programsize
    except re2.error as error:
        raise ValueError(str(error)) from None
    if size > LARGEST:
        raise ValueError("too large")


class PathRegexes:
    """Expressions that each match from a path's beginning on, though not always to its end."""

    __slots__ = ("_set",)

    def __init__(self, texts: Sequence[str]) -> None:
        """Of texts that `check` takes."""
        self._set = None
        if not texts:
            return
        together = re2.Set.MatchSet(_options())
        for text in texts:
            together.Add(text.encode("ascii"))
        together.Compile()
        self._set = together

    def matching(self, path: bytes) -> list[int]:
        """The indices of those that match."""
        if self._set is None or len(path) > LONGEST_PATH:
            return []
        return self._set.Match(path) or []


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _MEMORY
    return options
