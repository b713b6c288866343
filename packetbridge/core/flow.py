"""One spliced connection."""

from __future__ import annotations

from packetbridge.core.entry import Entry
from packetbridge.core.opening import Opening
from packetbridge.core.stamper import Stamper
from packetbridge.core.states import Event, State, after
from packetbridge.core.story import Story

CLIENT, SERVER, BOTH = 1, 2, 3  # bits of Flow.fins: FINs seen
SHORT = (State.SPLICED, State.CLOSING)  # states of the short way
# Bits of Flow.marks. DOUBTED: an inexact RST passed, and the server will be asked whether it has
# ended. RECORDED: the kernel has records of the flow; IN_KERNEL: and translates by them.
# FOLLOWED: the records, if any, are as the flow is. CLIENT_FIRST: of the FINs that count the
# client's was first. ANSWERED: the first byte of a response has been seen to, or is too old to be.
# UNHEARD, UNANSWERED: see packetbridge.core.uninspected.
DOUBTED, RECORDED, IN_KERNEL, FOLLOWED, CLIENT_FIRST, ANSWERED = 1, 2, 4, 8, 16, 32
UNHEARD, UNANSWERED = 64, 128
ATTEMPT_SHIFT = 8  # and above them the number of the balancer's attempt, from 0
RESET_SHIFT = 2  # and above them the RSTs


class Flow:
    """The translation's parameters and the flow's state.

    ``inbound`` and ``outbound`` are the 12-byte keys (source, destination, ports) of its packets
    from the client and from the server, ``addressing`` what these become. Going up (to the server)
    ``seq_up`` is added to the sequence number; going down ``seq_down`` = b - r; likewise the
    timestamps; acknowledgments and echoes shift back. All modulo 2**32.
    """

    __slots__ = (
        "addressing",
        "began",
        "client_ack",
        "client_fin",
        "down_window",
        "entry",
        "fast",
        "fins",
        "inbound",
        "isns",
        "marks",
        "opening",
        "outbound",
        "placed",
        "seen",
        "seq_down",
        "server_ack",
        "stamp_down",
        "stamper",
        "state",
        "story",
        "up_window",
    )

    def __init__(
        self, entry: Entry, inbound: bytes, c: int, b: int, now: float, attempt: int = 0
    ) -> None:
        self.entry = entry
        self.inbound = inbound
        self.isns = c.to_bytes(4, "big") + b.to_bytes(4, "big")
        self.state = State.HANDOFF
        self.seen = self.placed = now  # see common.core.eviction
        self.began = now
        self.story: Story | None = None  # for the access log, if there is one
        self.fast = False  # SPLICED and nothing special: packets take the short way
        self.fins = 0  # FIN seen from client 1, server 2; RST from client 4, server 8
        self.marks = attempt << ATTEMPT_SHIFT  # see DOUBTED and those beside it
        self.client_fin: int | None = None  # end of the client's FIN, the server not having it yet
        self.opening: Opening | None = None
        self.stamper: Stamper | None = None
        self.seq_down = self.stamp_down = 0
        self.up_window = self.down_window = 0  # bits to shift left; right where negative
        self.client_ack = (b + 1) & 0xFFFFFFFF  # the next byte each side expects, as it said
        self.server_ack = 0

    def address(self, source: bytes) -> None:
        """Fix the addresses and ports of the server's side; ``source`` is 6 bytes, what the server
        sees as the client's address and port."""
        entry = self.entry
        server, port = entry.server, entry.server_port.to_bytes(2, "big")
        self.outbound = server + source[:4] + port + source[4:]
        self.addressing = entry.addressing(self.inbound, self.outbound)

    @property
    def c(self) -> int:
        """The client's initial sequence number."""
        return int.from_bytes(self.isns[:4], "big")

    @property
    def b(self) -> int:
        """The balancer's."""
        return int.from_bytes(self.isns[4:], "big")

    @property
    def seq_up(self) -> int:
        return self.addressing.seq_up

    @property
    def stamp_up(self) -> int:
        return self.addressing.stamp_up

    @property
    def attempt(self) -> int:
        return self.marks >> ATTEMPT_SHIFT

    def tried(self, attempt: int) -> None:
        """The balancer has made this attempt at the connection: it is about the latest."""
        self.marks += max(attempt - self.attempt, 0) << ATTEMPT_SHIFT

    def marked(self, mark: int) -> bool:
        return bool(self.marks & mark)

    def mark(self, mark: int, on: bool) -> None:
        self.marks = self.marks | mark if on else self.marks & ~mark

    @property
    def up_address(self) -> bytes:
        """12 bytes, addresses and ports, of what goes to the server."""
        return self.addressing.up(self.inbound)

    @property
    def client_key(self) -> bytes:
        """The 12-byte key of its packets as the client sends them: to the VIP."""
        return self.inbound[:4] + self.entry.vip + self.inbound[8:]

    @property
    def incarnation(self) -> bytes:
        """See common.core.flow_id."""
        return self.client_key + self.isns

    def apply(self, event: Event) -> None:
        """Change state by the table."""
        before, self.state = self.state, after(self.state, event)
        if self.state is not before:
            self.entry.note(self, before)
            self.refresh()

    def answered(self, when: float) -> None:
        """The server's first byte came."""
        if not self.marks & ANSWERED:
            self.marks |= ANSWERED
            self.entry.figures.first_byte.observe(when - self.began)
            if self.story is not None:
                self.story.first_byte = when

    def carried(self, up: int, down: int, first: float) -> None:
        """What the kernel has carried by records that are gone: bytes of IP to the server and to
        the client, and when the server's first byte came, 0 for not in these."""
        self.entry.figures.up_bytes += up
        self.entry.figures.down_bytes += down
        if first:
            self.answered(first)
        if self.story is not None:
            self.story.kernel = 0, 0
            self.story.up_bytes += up
            self.story.down_bytes += down

    def refresh(self) -> None:
        """See whether the short way may be taken."""
        usual = self.opening is None and self.stamper is None and not self.marks & UNHEARD
        self.fast = usual and self.state in SHORT

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.inbound[:4])
        port = int.from_bytes(self.inbound[8:10], "big")
        server = ".".join(str(byte) for byte in self.entry.server)
        return f"{client}:{port} -> {server}:{self.entry.server_port}"
