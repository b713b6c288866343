"""The configured ways in, by what a packet tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from packetbridge.core.entry import Entry


class Ways:
    """``inbound`` finds an entry by (bridge's address, DSCP, port) of a client's TCP segment,
    ``by_server`` those of a server by its 6-byte address and port; ``datagrams`` and
    ``datagram_servers`` are the same for UDP, ``datagram_hosts`` the addresses of these. Among all
    are former ones, which are not configured any more: their connections go on."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self.inbound: dict[tuple[bytes, int, int], Entry] = {}
        self.by_server: dict[bytes, list[Entry]] = {}
        self.datagrams: dict[tuple[bytes, int, int], Entry] = {}
        self.datagram_servers: dict[bytes, list[Entry]] = {}
        self.datagram_hosts: set[bytes] = set()
        self._former: list[Entry] = []
        self._arrange()

    def named(self, name: str) -> list[Entry]:
        """Those of ADDRESS:PORT, of either protocol, or the one of ADDRESS:PORT/DSCP or
        ADDRESS:PORT/DSCP/udp. Raises KeyError for none."""
        found = [each for each in self.entries if name in (each.name, each.name.partition("/")[0])]
        if not found:
            raise KeyError(name)
        return found

    def replace(self, entries: Iterable[Entry]) -> None:
        """Have these from now on. One that has the same way in to the same server as one before
        stays that, with its flows and figures, and takes the new settings."""
        known = {_whole(each): each for each in (*self._former, *self.entries)}
        now = []
        for entry in entries:
            old = known.get(_whole(entry))
            now.append(old if old is not None and old.follow(entry) else entry)
        kept = set(map(id, now))
        self._former = [each for each in known.values() if id(each) not in kept]
        self.entries = now
        for entry in (*self._former, *now):
            entry.removed = id(entry) not in kept
        self._arrange()

    def every(self) -> Iterator[Entry]:
        """The configured ones, and the former."""
        return chain(self.entries, self._former)

    def former_in_use(self) -> list[Entry]:
        """The former ones that have connections in progress; the others are let go."""
        self._former = [each for each in self._former if each.figures.flows]
        self._arrange()
        return list(self._former)

    def _arrange(self) -> None:
        """In the same dictionaries, which others look into as well."""
        for known in (self.inbound, self.by_server, self.datagrams, self.datagram_servers):
            known.clear()
        for entry in (*self._former, *self.entries):  # the configured ones count
            of_udp = entry.protocol == "udp"
            inbound, servers = (
                (self.datagrams, self.datagram_servers)
                if of_udp
                else (self.inbound, self.by_server)
            )
            inbound[_way(entry)] = entry
            servers.setdefault(entry.server_key, []).append(entry)
        self.datagram_hosts.clear()
        self.datagram_hosts.update(key[:4] for key in self.datagram_servers)


def _whole(entry: Entry) -> tuple[object, ...]:
    return (*_way(entry), entry.protocol, entry.server_key, entry.vip)


def _way(entry: Entry) -> tuple[bytes, int, int]:
    return entry.address, entry.dscp, entry.port
