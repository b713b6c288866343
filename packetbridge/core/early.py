"""Segments that overtook the handoff they belong to: kept for a moment, should it come.

Dropped, they would have to be sent again, and a client sends the last segment of a request again
only after a time-out.
"""

from __future__ import annotations

from collections import OrderedDict

from common.core.segment import Segment

KEEP_SECONDS = 1.0  # longer than packets overtake each other, shorter than a client waits
MAX_FLOWS = 256
MAX_EACH = 12  # segments of one flow: an initial window


class Early:
    """By DSCP and the 12-byte key of the client's packets; the oldest flow goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, list[Segment]]] = OrderedDict()

    def keep(self, dscp: int, segment: Segment, now: float) -> None:
        key = bytes((dscp,)) + segment.key
        since, segments = self._kept.get(key, (now, []))
        if now - since > KEEP_SECONDS:
            since, segments = now, []
        if len(segments) < MAX_EACH:
            self._kept[key] = since, [*segments, segment]
            self._kept.move_to_end(key)
        if len(self._kept) > MAX_FLOWS:
            self._kept.popitem(last=False)

    def take(self, dscp: int, key: bytes, now: float) -> list[Segment]:
        """What was kept of a flow, in the order of its coming, and is kept no longer."""
        since, segments = self._kept.pop(bytes((dscp,)) + key, (now, []))
        return segments if now - since <= KEEP_SECONDS else []
