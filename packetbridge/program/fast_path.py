"""The bridge's fast path in the kernel: packetbridge/fastpath/splice.bpf.c and its records."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from common.adapters.aside import aside
from common.adapters.bpf import attachment
from common.adapters.bpf.layout import Layout
from common.adapters.bpf.object import Map, Ran, Totals, load_adopting
from common.core.ledger import Occurrence, Outcome
from common.core.segment import MASK, before
from common.program.datapath import attach, pin_directory, remove_pins
from packetbridge.core.config import Config
from packetbridge.core.fast_path import Ending, Fast, Former
from packetbridge.core.flow import (
    BOTH,
    CLIENT,
    CLIENT_FIRST,
    FOLLOWED,
    IN_KERNEL,
    RECORDED,
    SERVER,
    Flow,
)
from packetbridge.program.fast_mappings import KEPT, LAYOUTS, KernelMappings

OBJECT = Path(__file__).parent.parent / "fastpath" / "splice.bpf.o"
NAME = "l3dsr-packetbridge"  # of the filters at tc
# Packets and bytes, as the object's enum has them.
TOTALS = (
    (Fast.UP, Fast.UP_BYTES),
    (Fast.DOWN, Fast.DOWN_BYTES),
    (Fast.DATAGRAMS_UP, Fast.DATAGRAMS_UP_BYTES),
    (Fast.DATAGRAMS_DOWN, Fast.DATAGRAMS_DOWN_BYTES),
)
MAPPINGS = 4096  # that there is room for where no backend is for datagrams

FROM_SERVER = 255  # in a key, in place of the DSCP that a balancer set
KEY_BYTES = 16


class Way(NamedTuple):
    """struct way, read; see splice.bpf.c."""

    seen: int
    packets: int
    size: int  # bytes of IP
    first: int
    to: bytes
    seq_by: int
    ack_by: int
    value_by: int
    echo_by: int
    ack: int
    mark: int
    fin_end: int
    suspect_ack: int
    suspect: int
    window_by: int
    hop: int
    onward: int
    slow: int
    fin: int
    fins: int
    client_first: int
    pad2: int
    c: int
    b: int
    peer: bytes


WAY = Layout(
    "way",
    [
        ("seen", "Q"),
        ("packets", "Q"),
        ("bytes", "Q"),
        ("first", "Q"),
        ("to", "12s"),
        ("seq_by", "I"),
        ("ack_by", "I"),
        ("value_by", "I"),
        ("echo_by", "I"),
        ("ack", "I"),
        ("mark", "I"),
        ("fin_end", "I"),
        ("suspect_ack", "I"),
        ("suspect", "B"),
        ("window_by", "b"),
        ("hop", "B"),
        ("onward", "B"),
        ("slow", "B"),
        ("fin", "B"),
        ("fins", "B"),
        ("client_first", "B"),
        ("pad2", "I"),
        ("c", "I"),
        ("b", "I"),
        ("peer", "16s"),
    ],
)
ENDING = Layout("ending", [("client", "16s"), ("c", "I"), ("b", "I"), ("seen", "Q")])
COUNTED = struct.Struct("=QQQQ")  # seen, packets, bytes, first: how a way begins
NANOSECONDS = 10**9


class KernelPath:
    """Implements packetbridge.core.fast_path.FastPath. Raises BpfError where the kernel refuses
    it. ``mappings`` are the datagrams' part."""

    reports = True

    def __init__(
        self,
        flows: int,
        counts: Counter[Outcome | Occurrence],
        directory: Path | None = None,
        mappings: int = MAPPINGS,
    ) -> None:
        kept = {"ways": WAY, **KEPT}
        pins = (
            {}
            if directory is None
            else {name: directory / f"{name}-{kept[name].fingerprint}" for name in kept}
        )
        sizes = {"ways": 2 * flows, "mappings": mappings, "guises": mappings}
        self._object = load_adopting(OBJECT, [WAY, ENDING, *LAYOUTS], sizes, pins)
        self.mappings = KernelMappings(self._object, counts)
        self._endings = self._object.ring("endings")
        self.records: Map = self._object.map("ways", KEY_BYTES, WAY.size)
        self._totals = Totals(self._object, TOTALS)
        self._counts = counts
        self._due: list[Flow] = []
        self._withheld: Callable[[Flow], bool] | None = None
        # keys of an earlier run; None: all have been looked at
        self._earlier: Iterator[bytes] | None = self.records.keys()

    def run(self, program: str, packet: bytes, context: bytes = b"", times: int = 1) -> Ran:
        """What a program makes of a packet with its Ethernet header: see Object.run."""
        return self._object.run(program, packet, context, times)

    def attach(self) -> list[str]:
        """Translate what comes in and what leaves, on every Ethernet interface: gives the names of
        those that take it. And give the program that tells what is for Python a name, which the
        rules find it by."""
        names = attach(NAME, self.hooks())
        unusual().unlink(missing_ok=True)
        self._object.pin("unusual", str(unusual()))
        return names

    def hooks(self) -> list[attachment.Hook]:
        return [
            attachment.Hook(self._object.program("incoming"), attachment.INGRESS),
            attachment.Hook(self._object.program("outgoing"), attachment.EGRESS),
        ]

    def detach(self) -> None:
        clear()

    def endings(self) -> list[Ending]:
        found = []
        for record in self._endings.take():
            client, c, b, seen = ENDING.unpack(record)
            isns = c.to_bytes(4, "big") + b.to_bytes(4, "big")
            found.append(Ending(client[12], client[:12], isns, seen / NANOSECONDS))
        return found

    def follow(self, flow: Flow) -> None:
        if flow.marked(FOLLOWED) and flow.fast == flow.marked(IN_KERNEL):
            return
        flow.mark(FOLLOWED, True)
        if not _passes_interfaces(flow):
            return
        if _has_said_all(flow):
            self.forget(flow)
        elif flow.fast and not flow.marked(IN_KERNEL):
            self._due.append(flow)
        elif flow.marked(RECORDED) and not self._write(flow, slow=not flow.fast):
            self._counts[Fast.TABLE_FULL] += 1

    def begin(self, flow: Flow) -> bool:
        flow.mark(FOLLOWED, True)
        return _passes_interfaces(flow) and self._write(flow, slow=False)

    def settle(self) -> None:
        due, self._due = self._due, []
        for flow in due:
            if flow.fast and not _has_said_all(flow) and not self._write(flow, slow=False):
                self._counts[Fast.TABLE_FULL] += 1

    def recall(self, flow: Flow) -> None:
        if not flow.marked(IN_KERNEL):
            return
        client, server = self.ways(flow)
        if client is None or server is None:
            return
        # Python has its own packets' numbers, which may be the later ones.
        if client.seen / NANOSECONDS > flow.seen or before(flow.client_ack, client.ack):
            flow.client_ack = client.ack
        if server.seen / NANOSECONDS > flow.seen or before(flow.server_ack, server.ack):
            flow.server_ack = server.ack
        flow.seen = max(flow.seen, client.seen / NANOSECONDS, server.seen / NANOSECONDS)
        if server.first:
            flow.answered(server.first / NANOSECONDS)
        if flow.story is not None:
            flow.story.kernel = client.size, server.size
        _recall_ends(flow, server)

    def forget(self, flow: Flow) -> None:
        if flow.marked(RECORDED):
            client, server = (self.records.take(key) for key in _keys_of(flow))
            flow.mark(RECORDED | IN_KERNEL, False)
            if client is not None and server is not None:
                up, down = Way(*WAY.unpack(client)), Way(*WAY.unpack(server))
                _recall_ends(flow, down)
                flow.carried(up.size, down.size, down.first / NANOSECONDS)

    def withhold(self, wanted: Callable[[Flow], bool] | None) -> None:
        self._withheld = wanted

    def renew(self, flow: Flow) -> None:
        if flow.marked(RECORDED):
            self.recall(flow)
            self._write(flow, slow=not flow.fast)
        else:
            flow.mark(FOLLOWED, False)
            self.follow(flow)

    def former(self, tuple_: bytes, dscp: int | None) -> Former | None:
        if self._earlier is None:
            return None
        return self._former(tuple_ + bytes((FROM_SERVER if dscp is None else dscp, 0, 0, 0)))

    def formers(self, most: int) -> list[Former] | None:
        keys = list(islice(self._earlier or (), most))
        if not keys:
            self._earlier = None
            return None
        found = []
        for key in keys:
            former = self._former(key)
            if former is None:
                self.records.remove(key)  # one without the other: the program was killed in between
            elif key[12] != FROM_SERVER:
                found.append(former)
        return found

    def drop(self, former: Former) -> None:
        server, source = former.server, former.source
        outbound = server[:4] + source[:4] + server[4:] + source[4:]
        for key in _keys(former.inbound, former.dscp, outbound):
            self.records.remove(key)

    def _former(self, key: bytes) -> Former | None:
        """Either record leads to the other."""
        record = self.records.get(key)
        peer = None if record is None else self.records.get(Way(*WAY.unpack(record)).peer)
        if record is None or peer is None:
            return None
        if key[12] == FROM_SERVER:
            key, record, peer = Way(*WAY.unpack(record)).peer, peer, record
        up, down = (Way(*WAY.unpack(each)) for each in (record, peer))
        return Former(
            dscp=key[12],
            inbound=key[:12],
            source=up.to[:4] + up.to[8:10],
            server=up.to[4:8] + up.to[10:],
            c=up.c,
            b=up.b,
            seq_up=up.seq_by,
            seq_down=down.seq_by,
            stamp_up=up.value_by,
            stamp_down=down.value_by,
            up_window=up.window_by,
            down_window=down.window_by,
            client_ack=up.ack,
            server_ack=down.ack,
            fins=up.fins | down.fins,
            client_first=bool(down.client_first),
            client_fin=(down.fin_end - up.seq_by) & MASK if down.fin else None,
            slow=bool(up.slow),
            seen=max(up.seen, down.seen) / NANOSECONDS,
        )

    def ways(self, flow: Flow) -> list[Way | None]:
        """A flow's records: of the client's packets and of the server's."""
        found = (self.records.get(key) for key in _keys_of(flow))
        return [None if each is None else Way(*WAY.unpack(each)) for each in found]

    def gauges(self) -> dict[str, int]:
        return self._totals.read()

    def _write(self, flow: Flow, slow: bool) -> bool:
        """Both records, or none."""
        slow = slow or (self._withheld is not None and self._withheld(flow))
        to, entry = flow.addressing, flow.entry
        onward = not entry.local
        keys = _keys_of(flow)
        if flow.marked(RECORDED) and (old := self.records.get(keys[1])) is not None:
            _recall_ends(flow, Way(*WAY.unpack(old)))
        first = flow.marked(CLIENT_FIRST)
        fin_end = ((flow.client_fin or 0) + flow.seq_up) & MASK
        up = WAY.pack(
            *self._counted(flow, keys[0]), to.up(flow.inbound), flow.seq_up & MASK,
            -flow.seq_down & MASK, flow.stamp_up & MASK, -flow.stamp_down & MASK, flow.client_ack,
            entry.mark, 0, 0, 0, flow.up_window, to.up_hop, onward, slow, 0, flow.fins,
            first, 0, flow.c, flow.b, keys[1],
        )  # fmt: skip
        down = WAY.pack(
            *self._counted(flow, keys[1]), to.down(flow.outbound), flow.seq_down & MASK,
            -flow.seq_up & MASK, flow.stamp_down & MASK, -flow.stamp_up & MASK, flow.server_ack,
            entry.mark, fin_end, 0, 0, flow.down_window, to.down_hop, onward, slow,
            flow.client_fin is not None, flow.fins, first, 0, flow.c, flow.b, keys[0],
        )  # fmt: skip
        written = self.records.put(keys[0], up) and self.records.put(keys[1], down)
        if not written:
            for key in keys:  # what they were: better none than some that are out of date
                self.records.remove(key)
        flow.mark(RECORDED, written)
        flow.mark(IN_KERNEL, written and not slow)
        return written

    def _counted(self, flow: Flow, key: bytes) -> tuple[int, int, int, int]:
        """What a record that is about to be written anew has seen so far."""
        old = self.records.get(key) if flow.marked(RECORDED) else None
        return (0, 0, 0, 0) if old is None else COUNTED.unpack_from(old)


def _passes_interfaces(flow: Flow) -> bool:
    """What a local server sends to its own host's address does not."""
    return not (flow.entry.own_source and flow.entry.local)


def _recall_ends(flow: Flow, server: Way) -> None:
    """What the kernel has noted of both sides' FINs."""
    flow.fins |= server.fins & BOTH
    if server.client_first:
        flow.mark(CLIENT_FIRST, True)
    if flow.fins & CLIENT:
        flow.client_fin = None
    elif server.fin:
        flow.client_fin = (server.fin_end - flow.seq_up) & MASK


def _has_said_all(flow: Flow) -> bool:
    """Whether both sides have sent a FIN: what follows are a few acknowledgments, which records
    would cost more than they spare."""
    return bool(flow.fins & SERVER and (flow.fins & CLIENT or flow.client_fin is not None))


def _keys_of(flow: Flow) -> tuple[bytes, bytes]:
    return _keys(flow.inbound, flow.entry.dscp, flow.outbound)


def _keys(inbound: bytes, dscp: int, outbound: bytes) -> tuple[bytes, bytes]:
    """Of the records: the client's packets and the server's."""
    return inbound + bytes((dscp, 0, 0, 0)), outbound + bytes((FROM_SERVER, 0, 0, 0))


def room(config: Config) -> int:
    """For how many mappings: their memory is taken at the start."""
    udp = any(backend.protocol == "udp" for backend in config.backends)
    return config.limits.mappings if udp else min(MAPPINGS, config.limits.mappings)


def directory() -> Path:
    return pin_directory("packetbridge")


def unusual() -> Path:
    """Where the rules find the program that tells what is for Python."""
    return directory() / "unusual"


def clear() -> None:
    """Remove what this run or an earlier one left in the kernel."""
    aside(attachment.detach, NAME)
    remove_pins(directory())
