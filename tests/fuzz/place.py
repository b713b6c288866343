"""Where packets are fuzzed: addresses, ports, keys and clocks, of a model or of the lab."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, field

from common.core.keys import Keys, derive

PORT = 80  # the service's


@dataclass(frozen=True)
class Place:
    """``vips`` by DSCP; of ``clients`` the first three bytes, with ``hosts`` for the fourth. Times
    as a core wants them: monotonic, and what to add for seconds since 1970."""

    vips: dict[int, str] = field(default_factory=lambda: {5: "192.0.2.10", 6: "192.0.2.11"})
    bridges: tuple[str, ...] = ("203.0.113.20", "203.0.113.21")
    server: tuple[str, int] = ("203.0.113.30", 8080)
    clients: str = "198.51.100"
    hosts: range = range(1, 40)
    ports: range = range(1024, 1100)
    keys: Keys = field(default_factory=lambda: derive(bytes(range(32))))
    now: float = 5000.0
    wall_offset: float = 1_700_000_000.0 - 5000.0

    def client(self, rng: random.Random) -> tuple[bytes, int]:
        """Address and port of one of the clients."""
        address = f"{self.clients}.{rng.choice(self.hosts)}"
        return socket.inet_aton(address), rng.choice(self.ports)

    def vip(self, rng: random.Random) -> tuple[int, bytes]:
        """DSCP and address of a VIP, mostly the first."""
        dscps = list(self.vips)
        dscp = dscps[0 if rng.random() < 0.8 else -1]
        return dscp, socket.inet_aton(self.vips[dscp])
