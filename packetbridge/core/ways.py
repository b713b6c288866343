"""The configured ways in, by what a packet tells of them."""

from __future__ import annotations

from collections.abc import Iterable

from packetbridge.core.entry import Entry


class Ways:
    """``inbound`` finds an entry by (bridge's address, DSCP, port) of a client's packet,
    ``by_server`` those of a server by its 6-byte address and port."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.inbound: dict[tuple[bytes, int, int], Entry] = {}
        self.by_server: dict[bytes, list[Entry]] = {}
        self._arrange(entries)

    @property
    def entries(self) -> list[Entry]:
        return list(self.inbound.values())

    def named(self, name: str) -> list[Entry]:
        """Those of ADDRESS:PORT, or the one of ADDRESS:PORT/DSCP. Raises KeyError for none."""
        found = [each for each in self.entries if name in (each.name, each.name.partition("/")[0])]
        if not found:
            raise KeyError(name)
        return found

    def at(self, address: str, port: int, dscps: tuple[int, ...]) -> list[Entry]:
        """Those of a bridge's address and port, for some DSCPs, or, with none, for all."""
        found = (each for each in self.entries if each.name.startswith(f"{address}:{port}/"))
        return [each for each in found if not dscps or each.dscp in dscps]

    def replace(self, entries: Iterable[Entry]) -> list[Entry]:
        """Have these from now on; gives those that are there no more. One that has the same way in
        to the same server stays, with its flows and figures, and takes the new settings."""
        before = dict(self.inbound)
        now = []
        for entry in entries:
            old = before.get(_way(entry))
            now.append(old if old is not None and old.follow(entry) else entry)
        gone = [entry for entry in before.values() if entry not in now]
        for entry in gone:
            entry.removed = True
        self._arrange(now)
        return gone

    def _arrange(self, entries: Iterable[Entry]) -> None:
        """In the same dictionaries, which others look into as well."""
        self.inbound.clear()
        self.by_server.clear()
        for entry in entries:
            self.inbound[_way(entry)] = entry
            self.by_server.setdefault(entry.server_key, []).append(entry)


def _way(entry: Entry) -> tuple[bytes, int, int]:
    return entry.address, entry.dscp, entry.port
