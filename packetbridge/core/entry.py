"""One way in at run time: (bridge address, DSCP, port), and the server that it leads to."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from common.core.keys import Keys
from packetbridge.core.addressing import Addressing
from packetbridge.core.config import Backend
from packetbridge.core.figures import Figures
from packetbridge.core.states import State

if TYPE_CHECKING:
    from packetbridge.core.flow import Flow

# Milliseconds of round trip from which ``auto`` holds: with BBR, whose model of the path starts
# from the handshake, and with anything else, where the retransmission time-out is what suffers.
HOLD_BBR = 10
HOLD_OTHERS = 150

IN_PROGRESS = (State.SYN_SENT, State.SPLICED, State.CLOSING)

_ENDPOINT = struct.Struct("!4sH")


class Entry:
    """``server_key`` is 6 bytes, the server's address and port. ``local``: it is on this host.
    ``protocol``: "tcp" or "udp", whose ports are others.

    ``handoff``: connections begin with one, and not with the client's own SYN.

    ``bbr`` says that the server's route to clients uses BBR, as far as can be known here.

    While it is ``draining``, or not ``up`` for ``reason``, handoffs are given back. ``asking`` are
    the flows whose server has not answered yet. One that is ``removed`` from the configuration is
    there for its flows alone.
    """

    __slots__ = (
        "_bbr",
        "_hold",
        "_hops",
        "_plain",
        "address",
        "asking",
        "balancer_keys",
        "connect",
        "draining",
        "dscp",
        "figures",
        "handoff",
        "local",
        "mark",
        "no_timestamps_until",
        "on_down",
        "own_source",
        "port",
        "ports",
        "protocol",
        "reason",
        "removed",
        "server",
        "server_port",
        "up",
        "vip",
    )

    def __init__(
        self, configured: Backend, dscp: int, vip: str, mark: int, local: bool, bbr: bool
    ) -> None:
        self.handoff = configured.handoff
        self.address = IPv4Address(configured.address).packed
        self.port = configured.port
        self.protocol = configured.protocol
        self.dscp = dscp
        self.vip = IPv4Address(vip).packed
        self.server = IPv4Address(configured.server_address).packed
        self.server_port = configured.server_port
        self.mark = mark | dscp
        self.connect = configured.connect  # seconds to wait for the server's SYN-ACK
        self.own_source = configured.source == "bridge"
        self.ports = configured.ports
        self.local = local
        self.balancer_keys: Keys | None = None  # those of the latest handoff
        self._plain: Addressing | None = None  # of flows with the client's own address and port
        self.no_timestamps_until = 0.0  # learned from the server's SYN-ACKs
        # One hop is counted here, but not twice: what the kernel forwards it counts itself.
        self._hops = (1 if local or self.own_source else 0, 1 if local else 0)
        self._hold = configured.hold_handshake
        self._bbr = bbr
        self.on_down = configured.on_down
        self.up, self.reason, self.draining, self.removed = True, "", False, False
        self.figures = Figures()
        self.asking: set[Flow] = set()

    def follow(self, changed: Entry) -> bool:
        """Take the settings of the same way in from a new configuration; False where those that its
        connections depend on are others."""
        kept = ("server_key", "vip", "mark", "own_source", "local", "handoff")
        if any(getattr(self, name) != getattr(changed, name) for name in kept):
            return False
        for name in ("connect", "on_down", "ports", "_hold", "_bbr"):
            setattr(self, name, getattr(changed, name))
        return True

    def note(self, flow: Flow, before: State) -> None:
        """One of its flows has changed its state."""
        state = flow.state
        self.figures.flows += (state in IN_PROGRESS) - (before in IN_PROGRESS)
        if state is State.SYN_SENT:
            self.asking.add(flow)
        elif before is State.SYN_SENT:
            self.asking.discard(flow)

    @property
    def name(self) -> str:
        """ADDRESS:PORT/DSCP, and /udp of one for datagrams: no other has it."""
        kind = "/udp" if self.protocol == "udp" else ""
        return f"{IPv4Address(self.address)}:{self.port}/{self.dscp}{kind}"

    @property
    def server_name(self) -> str:
        """ADDRESS:PORT of the server."""
        return f"{IPv4Address(self.server)}:{self.server_port}"

    @property
    def hops(self) -> tuple[int, int]:
        """What is taken off the TTL here, up and down."""
        return self._hops

    @property
    def server_key(self) -> bytes:
        return _ENDPOINT.pack(self.server, self.server_port)

    @property
    def asks_twice(self) -> bool:
        """Whether a server that would sample the wrong round trip is kept from sampling at all, by
        a second SYN (see Opener), rather than made to wait."""
        return self._hold == "auto"

    def hold_seconds(self, rtt: int) -> float:
        """How long to hold the handshake's last ACK, so that the server's first sample of the
        round trip is the client's (``rtt``, milliseconds) and not this host's."""
        shortest = 0 if self._hold == "on" else HOLD_BBR if self._bbr else HOLD_OTHERS
        return 0.0 if self._hold == "off" or rtt < shortest else rtt / 1000

    def addressing(self, inbound: bytes, outbound: bytes) -> Addressing:
        """For flows with those keys: one for all plain ones, or one for this flow."""
        if self.own_source or outbound[4:8] != inbound[:4] or outbound[10:] != inbound[8:10]:
            return Addressing(self.vip, self._hops, inbound, outbound)
        if self._plain is None:
            self._plain = Addressing(self.vip, self._hops, inbound, outbound)
        return self._plain
