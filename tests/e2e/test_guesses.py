"""Many attempts at a connection that nobody was given: handoffs with a MAC or an epoch that is not
right, or used before, and acknowledgments of cookies that were never made."""

from __future__ import annotations

import functools
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from balancer.core import cookie
from common.core import handoff
from common.core.keys import Keys, derive
from common.core.segment import ACK, MASK, PSH, Segment, build, build_along
from tests.e2e import web
from tests.e2e.capture import SYN, Packet, capture
from tests.e2e.flooding import flooding, spoofed_sources_routed
from tests.e2e.hostile import DSCP, logged
from tests.e2e.lab import BRIDGE1, CLIENT, LAB, SERVER1, VIP, Lab, until
from tests.e2e.raw import RawSender, new_port
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

RATE = 3000  # a second: what the program judges without losing one in the kernel's queue
CHANCE = 2**-24  # that a guess at a cookie is right
STAMPS = b"\x01\x01\x08\x0a" + bytes(3) + b"\x01" + bytes(3) + b"\x02"
REQUEST = web.request("/1k?guessed", close=True)


def test_no_false_handoff_opens_a_connection(
    lab: Lab, keys: Keys, amount: Amount, report: Report
) -> None:
    """Forged, of another key, too old, and recorded ones again, from the same source and another:
    the server, where a capture watches, does not get one SYN."""
    each, recordings = amount((400, 20), (10_000, 200))
    until(lambda: not unfinished(lab), 30, "what other tests have left has ended")
    asked = functools.partial(lab.counters, "backend1")
    until(lambda: not asked().get("held_bytes"), 30, "no server is being asked")
    before = logged(lab, "?guessed")
    genuine = _recorded(lab, recordings)
    turns = each // recordings
    forms = {
        "forged": [_handoff(number, dice) for number, dice in _numbered(each)],
        "of another key": [
            _handoff(number, dice, derive(bytes(32))) for number, dice in _numbered(each)
        ],
        "too old": [
            _handoff(number, dice, keys, age=dice.uniform(24, 120))
            for number, dice in _numbered(each)
        ],
        "again": genuine * turns,
        "again, from another source": [
            _from_another_source(packet, turn) for turn in range(turns) for packet in genuine
        ],
    }
    packets = [packet for form in forms.values() for packet in form]
    random.Random(3).shuffle(packets)
    grown = lab.growth("backend1")
    with capture(lab, "backend1", "lo") as loopback, spoofed_sources_routed(lab, "backend1"):
        seconds = len(packets) / RATE
        with flooding(lab, packets, RATE, seconds, "backend1") as flood:
            for passed in range(int(seconds)):
                time.sleep(1)
                amount.progress(passed * RATE, len(packets))
            time.sleep(seconds % 1)
        reasons = ("bad_handoff_mac", "old_handoff_epoch", "handoff_again", "handoffs_again")
        until(lambda: sum(map(grown, reasons)) == flood.sent, 20, "all are dropped by name")
        syns = [p for p in loopback.packets if p.destination == SERVER1 and p.flags & SYN]
    counted = ", ".join(f"{grown(reason):,} {reason}" for reason in reasons)
    report(f"{flood.sent:,} handoffs: {counted}; {len(syns)} SYNs to the server")
    assert flood.sent > 0.9 * len(packets)
    assert grown("flows_opened") == 0
    assert syns == []
    assert logged(lab, "?guessed") == before + recordings


def test_no_guess_at_a_cookie_gets_through(
    lab: Lab, keys: Keys, sender: RawSender, amount: Amount, report: Report
) -> None:
    """Random ones; and one that was given to somebody, with other addresses, ports or numbers. With
    the key it is known beforehand which of them would be right by chance: those are left out."""
    count = amount(8_000, 100_000)
    new_port()  # those beside it are nobody's, nor were a moment ago
    given = sender.open()
    new_port()
    stolen = [
        _request(_source(number), port, given.isn + by, given.server_isn)
        for number, port, by in ((number, given.port, 0) for number in range(500))
    ]
    stolen += [_request(CLIENT, given.port + by, given.isn, given.server_isn) for by in (-1, 1)]
    stolen += [_request(CLIENT, given.port, given.isn + by, given.server_isn) for by in (-1, 1)]
    guesses = [
        _request(_source(number), dice.randrange(1024, 65536), *_pair(dice))
        for number, dice in _numbered(count)
    ]
    wrong = [packet for packet in guesses + stolen if not _right(keys, packet)]
    grown, lost = lab.growth("balancer"), lab.lost("balancer")
    seconds = len(wrong) / RATE
    with spoofed_sources_routed(lab, "balancer"):
        with flooding(lab, wrong, RATE, seconds) as flood:
            for passed in range(int(seconds)):
                time.sleep(1)
                amount.progress(passed * RATE, len(wrong))
            time.sleep(seconds % 1)
        until(lambda: grown("unknown_flow") == flood.sent, 20, "all are dropped by name")
    report(
        f"{flood.sent:,} guesses at a cookie, none got through; by chance {count * CHANCE:.4f} "
        f"would, and {len(guesses + stolen) - len(wrong)} that would were left out"
    )
    assert flood.sent > 0.9 * len(wrong)
    assert lab.lost("balancer") == lost
    assert grown("connections") == grown("handoffs") == 0


@pytest.mark.parametrize("forgotten", [False, True], ids=["at once", "once forgotten"])
def test_late_duplicate_of_a_whole_request(lab: Lab, sender: RawSender, forgotten: bool) -> None:
    """All that the client sent, again, its cookie being good for another minute: the server sees
    the request once, whether the programs still have the flow or a note of it only."""

    def forgetful(text: str) -> str:
        closing = "closing = 1.0\n"
        more = "idle = 1.0\nlinger = 0.0\n" if "[[backends]]" in text else ""
        return f"{text}\n[timeouts]\n{closing}{more}"

    programs = ("balancer", "backend1", "backend2")
    if not forgotten:
        _send_again(lab, sender, "?late-at-once")
        return
    with lab.configured(**dict.fromkeys(programs, forgetful)):
        _send_again(lab, sender, "?late-forgotten", forgotten=True)


def _send_again(lab: Lab, sender: RawSender, word: str, forgotten: bool = False) -> None:
    path = lab.path_for("1k", "backend1") + word
    with capture(lab, "client") as packets:
        port = lab.curl(path).port
        until(lambda: lab.closed(port), 5, "the connection is over")
        sent = [p for p in packets.packets if p.outgoing and port in p.ports]
    if forgotten:
        for program in ("balancer", "backend1"):
            until(lambda: lab.counters(program)["flows"] == 0, 20, f"{program} forgets")  # noqa: B023
    grown, opened = lab.growth("balancer"), lab.growth("backend1")
    for _ in range(3):
        for packet in sent:
            if not packet.flags & SYN:
                sender.send(_anew(packet))
    if forgotten:
        until(lambda: grown("closed_flow_again") >= 3, 2, "the balancer knows the request")
    else:
        until(lambda: opened("handoffs_again") >= 1, 2, "the bridge knows the handoff")
    assert grown("connections") == 0
    assert opened("flows_opened") == 0
    assert logged(lab, word) == 1


def _recorded(lab: Lab, count: int) -> list[bytes]:
    """Handoffs of so many connections to backend1, which are over."""
    path = lab.path_for("1k", "backend1") + "?guessed"
    with capture(lab, "backend1") as packets:
        tally = web.one_after_another(lab, count, path, (LAB / "www" / "1k").read_bytes())
        assert tally.failures == []
    found = [p.data for p in packets.packets if not p.outgoing and 253 in p.options]
    assert len(found) == count
    return found


def _handoff(number: int, dice: random.Random, keys: Keys | None = None, age: float = 0) -> bytes:
    """A handoff right in all but what is said; without a key the MAC is random."""
    port, c, b = dice.randrange(1024, 65536), dice.getrandbits(31), dice.getrandbits(31)
    source = socket.inet_aton(_source(number))
    seen = source + socket.inet_aton(VIP) + port.to_bytes(2, "big") + (80).to_bytes(2, "big")
    message = handoff.Handoff(handoff.Kind.HANDOFF, 1460, 0, 7, 7, sack=True)
    epoch = handoff.epoch_at(time.time() - age)
    binding = handoff.Binding(seen, c, b, c + 1)
    option = handoff.encode(keys or derive(bytes(16)), message, binding, epoch)
    if keys is None:
        option = option[:8] + dice.randbytes(8)
    return build(
        source,
        socket.inet_aton(BRIDGE1),
        port,
        80,
        seq=c + 1,
        ack=b + 1,
        flags=ACK | PSH,
        window=512,
        options=option + STAMPS,
        payload=REQUEST,
        tos=DSCP,
    )


def _from_another_source(packet: bytes, turn: int) -> bytes:
    """By turns from another port and from another address."""
    segment = Segment(packet)
    if turn % 2:
        return segment.rewritten(src=socket.inet_aton(_source(turn)))
    return segment.rewritten(sport=segment.sport ^ (turn + 1))


def _request(source: str, port: int, c: int, b: int) -> bytes:
    """The first segment of a client that has seen the SYN-ACK ``b`` to its SYN ``c``."""
    return build(
        socket.inet_aton(source),
        socket.inet_aton(VIP),
        port,
        80,
        seq=(c + 1) & MASK,
        ack=(b + 1) & MASK,
        flags=ACK | PSH,
        window=512,
        options=STAMPS,
        payload=REQUEST,
    )


def _right(keys: Keys, packet: bytes) -> bool:
    """Whether a request acknowledges a cookie that is good now or in the epoch to come."""
    segment = Segment(packet)
    c, b = (segment.seq - 1) & MASK, (segment.ack - 1) & MASK
    walls = (time.time(), time.time() + cookie.EPOCH_SECONDS)
    return any(cookie.check(keys.cookie, segment.key, c, b, wall) for wall in walls)


def _anew(packet: Packet) -> bytes:
    """A packet that was recorded before the interface had filled in its checksum."""
    segment = Segment(packet.data)
    return build_along(
        segment.key,
        segment.flags,
        seq=segment.seq,
        ack=segment.ack,
        window=segment.window,
        options=segment.options,
        payload=segment.payload,
    )


def _pair(dice: random.Random) -> tuple[int, int]:
    return dice.getrandbits(32), dice.getrandbits(32)


def _numbered(count: int) -> Iterator[tuple[int, random.Random]]:
    dice = random.Random(count)
    return ((number, dice) for number in range(count))


def _source(number: int) -> str:
    return socket.inet_ntoa((0x0A00_0001 + number).to_bytes(4, "big"))


def unfinished(lab: Lab) -> list[str]:
    """The client's connections that may still have something to send."""
    lines = lab.run("client", "ss", "-Htan").splitlines()
    return [line for line in lines if line.split()[0] not in ("TIME-WAIT", "LISTEN")]
