"""What all parts of the bridge's core share, and the packets it sends of its own accord."""

from __future__ import annotations

from collections.abc import Callable

from common.core.access import AccessRecords
from common.core.keys import Keyring, Keys
from common.core.ledger import Ledger, Outcome
from common.core.segment import ACK, MASK, RST, build_along
from common.core.timing import Schedule
from packetbridge.core.entry import Entry
from packetbridge.core.fast_path import FastPath
from packetbridge.core.flow import UNHEARD, Flow
from packetbridge.core.flow_table import FlowTable
from packetbridge.core.states import State
from packetbridge.core.story import Story


class Served(Outcome):
    """What became of a packet that was good for something, where no module of its own counts it."""

    UP = "spliced_up"  # translated, to the server
    DOWN = "spliced_down"  # translated, to the client
    DIRECT = "direct"  # of a direct connection with the server: let by


class Context:
    """``out`` collects (mark, packet) to be sent, in order; whoever runs the core takes them.
    ``beforehand`` is done just before what comes of the packet at hand leaves. ``over`` collects
    connections whose end the balancers are still to be told of.

    ``wall`` is the time of the packet or timer at hand, in seconds since 1970. ``access`` takes
    what is told of connections that are over.
    """

    __slots__ = (
        "access",
        "beforehand",
        "fast",
        "keys",
        "ledger",
        "out",
        "over",
        "schedule",
        "table",
        "wall",
    )

    def __init__(
        self,
        keys: Keyring,
        ledger: Ledger,
        table: FlowTable,
        fast: FastPath,
        now: float,
        wall: float,
    ) -> None:
        self.fast = fast
        self.keys = keys
        self.ledger = ledger
        self.table = table
        self.out: list[tuple[int, bytes]] = []
        self.beforehand: list[Callable[[], None]] = []
        self.over: list[Flow] = []
        self.schedule = Schedule(now)
        self.wall = wall
        self.access = AccessRecords(ledger.counts)

    def begin_story(self, flow: Flow, now: float, known: bool = True) -> None:
        """Collect what will be told of ``flow``, if anything is; of one that is not ``known`` from
        its beginning, what there is."""
        if self.access.wanted:
            began = flow.began if known else None
            flow.story = Story(flow.entry, flow.incarnation, began, self.wall - now)

    def tell(self, flow: Flow, end: str, now: float) -> None:
        """A flow is over; said once."""
        story = flow.story
        if story is not None and not story.end:
            story.end, story.ended = end, now
            self.access.add(story)

    def answering(self, entry: Entry) -> Keys:
        """The keys that the entry's balancer is answered under: those that it used last."""
        keys = entry.balancer_keys
        return self.keys.signing if keys not in self.keys.accepted or keys is None else keys

    def to_server(
        self,
        flow: Flow,
        flags: int,
        *,
        seq: int,
        ack: int = 0,
        window: int = 0,
        options: bytes = b"",
        payload: bytes = b"",
    ) -> None:
        """Send the server a segment as from the client."""
        self.send(
            flow.entry,
            flow.up_address,
            flags,
            seq=seq,
            ack=ack,
            window=window,
            options=options,
            payload=payload,
        )

    def to_client(self, entry: Entry, inbound: bytes, flags: int, *, seq: int) -> None:
        """Send the client of ``inbound`` an empty segment from the entry's VIP."""
        address = entry.vip + inbound[:4] + inbound[10:12] + inbound[8:10]
        self.send(entry, address, flags, seq=seq)

    def reset_client(self, flow: Flow) -> None:
        """RST with the sequence number that the client said it expects; one that has not got the
        server's SYN-ACK looks at the acknowledgment (RFC 9293 section 3.10.7.3)."""
        self.fast.recall(flow)
        address = flow.entry.vip + flow.inbound[:4] + flow.inbound[10:12] + flow.inbound[8:10]
        syn, ack = flow.marked(UNHEARD), (flow.server_ack - flow.seq_up) & MASK
        flags = RST | ACK if syn else RST
        self.send(flow.entry, address, flags, seq=flow.client_ack, ack=ack if syn else 0)

    def reset_server(self, flow: Flow) -> None:
        """RST with the sequence number that the server said it expects, if it has a connection or
        has answered that it would."""
        answered = flow.opening is not None and flow.opening.syn_ack is not None
        if answered or flow.state in (State.SPLICED, State.CLOSING, State.LINGER):
            self.fast.recall(flow)
            self.to_server(flow, RST, seq=flow.server_ack)

    def send(
        self,
        entry: Entry,
        address: bytes,
        flags: int,
        *,
        seq: int,
        ack: int = 0,
        window: int = 0,
        options: bytes = b"",
        payload: bytes = b"",
    ) -> None:
        """Send a segment; ``address`` is 12 bytes: source, destination and both ports."""
        packet = build_along(
            address, flags, seq=seq, ack=ack, window=window, options=options, payload=payload
        )
        self.out.append((entry.mark, packet))
