"""What a capture tells of one connection: its sequence numbers, its request, its lines."""

from collections import Counter
from dataclasses import dataclass, field

from balancer.core.cookie import MSS_STEPS
from balancer.core.request.http2 import message as http2
from balancer.core.request.line import Request, inspect
from balancer.core.request.tls import client_hello
from balancer.core.request.tls.client_hello import ClientHello
from balancer.core.request.verdict import Bad, Reason
from common.core.segment import ACK, FIN, MASK, RST
from common.program.decoding.capture import Seen
from common.program.decoding.dissector import scale_text
from common.program.decoding.wording import plural, relative

MOST_BYTES = 65535  # of a head, however a service is configured


@dataclass(slots=True)
class Flow:
    """What is known of one connection, and its lines.

    `c`, `b`, `r` are the initial sequence numbers of client, balancer and backend. Where the
    capture lacks a SYN, they are taken from the first packet seen, and named in `guessed`.
    `offered` is the c of a later SYN, which anyone can send: it holds once it has been answered.
    `begun` are the client's first bytes, until the request is whole; `tls` says of which kind.
    """

    title: str
    tls: bool = False
    offered: int | None = None
    c: int | None = None
    b: int | None = None
    r: int | None = None
    guessed: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bridges: dict[str, int] = field(default_factory=dict)
    request: str = ""
    begun: bytes = b""
    first: float = 0.0
    last: float = 0.0

    def learn(self, name: str, isn: int, *, certain: bool = False) -> None:
        """Take `isn` for c, b or r unless a better one is known."""
        if getattr(self, name) is None or (certain and name in self.guessed):
            setattr(self, name, isn & MASK)
            (self.guessed.discard if certain else self.guessed.add)(name)

    def restart(self, c: int, b: int) -> None:
        """A new connection of the same addresses: nothing of the one before holds."""
        self.c, self.b, self.r, self.offered = c, b & MASK, None, None
        self.guessed.clear()
        self.request, self.begun = "", b""

    def restart_backend(self, r: int) -> None:
        """A SYN-ACK of the backend, perhaps of another one than before."""
        self.r = r
        self.guessed.discard("r")

    def add(self, seen: Seen, way: str, words: str) -> None:
        if not self.lines:
            self.first = seen.time
        self.last = seen.time
        self.lines.append(f"{seen.time:12.6f}  {way}  {words}")


def client_syn(seen: Seen, flow: Flow) -> str:
    """Note the c of a client's SYN; in words, if it is not the first."""
    if flow.c is None:
        flow.c = seen.seq
        return ""
    if flow.c == seen.seq:
        return "  (again)"
    flow.offered = seen.seq
    return "  (another connection's)"


def confirmed(seen: Seen, flow: Flow) -> str:
    """In words, if this packet goes on from a later SYN, which makes a new connection of it."""
    if flow.offered is None or not seen.flags & ACK or seen.seq != (flow.offered + 1) & MASK:
        return ""
    flow.restart(flow.offered, seen.ack - 1)
    return "  (new incarnation)"


def guess(flow: Flow, seen: Seen, sender: str, receiver: str) -> None:
    """Without a SYN in the capture, count from the first packet."""
    flow.learn(sender, seen.seq - 1)
    if seen.flags & ACK:
        flow.learn(receiver, seen.ack - 1)


def tally(flow: Flow, seen: Seen, what: str, sender: str) -> None:
    """For the summary: payload, retransmissions included, and how the connection ended."""
    flow.counts[f"{what} bytes"] += seen.length
    for flag, name in ((FIN, "FIN"), (RST, "RST")):
        if seen.flags & flag:
            flow.counts[f"{name} from {sender}"] += 1


def request_words(seen: Seen, flow: Flow) -> str:
    """The request, at the segment that ends it and where its first one is repeated; kept for the
    summary."""
    if not seen.payload or flow.c is None:
        return ""
    at = relative(seen.seq, flow.c) - 1  # the payload's place in the stream
    if flow.request:
        return f"  {flow.request}" if at == 0 else ""
    size = len(flow.begun)
    if not at <= size < at + len(seen.payload):
        return ""
    flow.begun += seen.payload[size - at :]
    flow.request, incomplete = (_hello if flow.tls else _http)(flow.begun)
    if flow.request:
        flow.begun = b""
    return f"  {flow.request or incomplete}"


def _http(begun: bytes) -> tuple[str, str]:
    """The request of either version, or what there is only a part of."""
    answer = inspect(begun, MOST_BYTES)
    if answer == Bad(Reason.HTTP2_PREFACE):
        return _http2(begun)
    if isinstance(answer, Request):
        return f"{answer.method.decode('ascii')} {answer.path.decode('ascii')}", ""
    if isinstance(answer, Bad):
        return f"no HTTP ({answer.reason})", ""
    return "", "incomplete request line"


def _http2(begun: bytes) -> tuple[str, str]:
    answer = http2.inspect(begun, MOST_BYTES)
    if isinstance(answer, http2.Message):
        method, _, path, _ = answer.request
        return f"HTTP/2 {method.decode('ascii')} {path.decode('ascii')}", ""
    if isinstance(answer, Bad):
        return f"no HTTP/2 ({answer.reason})", ""
    return "", "incomplete HTTP/2 head"


def _hello(begun: bytes) -> tuple[str, str]:
    answer = client_hello.inspect(begun, MOST_BYTES)
    if isinstance(answer, ClientHello):
        words = ["TLS", answer.name.decode("ascii") or "without a name"]
        names = b",".join(answer.protocols).decode("ascii", "backslashreplace")
        return " ".join([*words, names] if names else words), ""
    if isinstance(answer, Bad):
        return f"no TLS ({answer.reason})", ""
    return "", "incomplete ClientHello"


def summary(flow: Flow) -> str:
    """The last line of a flow."""
    words = [f"{plural(len(flow.lines), 'packet')} in {flow.last - flow.first:.6f} s"]
    if flow.request:
        words.append(f"request {flow.request}")
    for bridge, count in flow.bridges.items():
        words.append(f"handed to {bridge}" + (f" ({count} times)" if count > 1 else ""))
    words += [f"{count} {what}" for what, count in flow.counts.items() if count]
    words += [_isn_words(flow)] * (flow.c is not None)
    return "summary: " + "; ".join(words)


def _isn_words(flow: Flow) -> str:
    known = {name: getattr(flow, name) for name in "cbr" if getattr(flow, name) is not None}
    words = [
        f"{name}={isn}" + " (first seen)" * (name in flow.guessed) for name, isn in known.items()
    ]
    if flow.b is not None and flow.r is not None:
        words.append(f"b-r={(flow.b - flow.r) & MASK}")
    return " ".join(words)


def cookie_words(b: int) -> str:
    """The low 8 bits of a SYN cookie (balancer.core.cookie has the layout)."""
    index = b >> 5 & 3
    return (
        f"cookie(mss index {index} = {MSS_STEPS[index]}, {'sack' if b & 16 else 'no-sack'}, "
        f"client wscale {scale_text(b & 15)}, parity {b >> 7 & 1})"
    )
