"""What the kernel does with datagrams by itself, as the core sees it: it has a record for each
mapping, and steers by it as Python would."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from balancer.core.datagrams.mapping import Mapping
from common.core.ledger import Occurrence


class FastDatagrams(Occurrence):
    """Of the kernel's path."""

    PACKETS = "fast_datagrams"
    BYTES = "fast_datagram_bytes"  # in these, of IP
    UNROUTED = "fast_datagrams_unrouted"  # of these, left to the stack to forward
    TABLE_FULL = "fast_mappings_full"  # mappings left to Python
    ADOPTED = "mappings_adopted"  # of an earlier run
    NOT_ADOPTED = "mappings_not_adopted"


class FormerMapping(NamedTuple):
    """What the kernel still knows of a mapping of an earlier run: its 12-byte key, the address of
    its bridge, and when it was seen, in monotonic seconds (0: never by the kernel)."""

    key: bytes
    bridge: bytes
    seen: float


class FastMappings(Protocol):
    """Keeps the kernel's records in step with the table of mappings."""

    def steer(self, mapping: Mapping) -> None:
        """Let the kernel steer the mapping's datagrams, as it then is, once all is settled; called
        again when the mapping changes. A full table leaves it to Python."""

    def settle(self) -> None:
        """Give the kernel what it is to have."""

    def recall(self, mapping: Mapping) -> None:
        """Bring ``seen`` and what is counted up to what the kernel has seen."""

    def forget(self, mapping: Mapping) -> None:
        """The mapping is over: remove its record, having recalled what it has counted."""

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        """Leave to Python each mapping that is ``wanted`` when its record is about to be written;
        None: no more."""

    def renew(self, mapping: Mapping) -> None:
        """Have its record written anew, for what ``withhold`` said since."""

    def drop(self, key: bytes) -> None:
        """Remove the record of a mapping that the table does not have."""

    def former(self, key: bytes) -> FormerMapping | None:
        """What is known of a mapping that the table does not have (any more), by its key."""

    def formers(self, most: int) -> list[FormerMapping] | None:
        """At most so many of an earlier run, others at each call; none left: none given."""


class NoFastMappings:
    """Every datagram takes the way through Python."""

    def steer(self, mapping: Mapping) -> None:
        pass

    def settle(self) -> None:
        pass

    def recall(self, mapping: Mapping) -> None:
        pass

    def forget(self, mapping: Mapping) -> None:
        pass

    def withhold(self, wanted: Callable[[Mapping], bool] | None) -> None:
        pass

    def renew(self, mapping: Mapping) -> None:
        pass

    def drop(self, key: bytes) -> None:
        pass

    def former(self, key: bytes) -> FormerMapping | None:
        return None

    def formers(self, most: int) -> list[FormerMapping] | None:
        return None
