"""Connections that nobody reads, at the bridge: all but addresses stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from packetbridge.core.states import State
from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, MARK, SERVER, VIPS, Connection, Stage
from tests.unit.scapy_oracle import fields, raw_options, tcp_packet

OFFER = [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 5)]
SACK = raw_options([("NOP", None), ("NOP", None), ("SAck", (5, 9))])


def stage_of(**settings: Any) -> Stage:
    return Stage(handoff=False, **settings)


class Plain(Connection):
    """One whose handshake is the server's own: there is no balancer's number, and ``r`` is what
    the client gets, too."""

    def __init__(self, stage: Stage, *arguments: Any, **named: Any) -> None:
        super().__init__(stage, *arguments, **named)
        self.b = self.r

    def syn(self, **changes: Any) -> bytes:
        """Send a SYN; what goes on to the server, which the bridge sends with its mark."""
        offer = {"options": raw_options(OFFER), "ack": 0}
        assert self.send(b"", -1, flags="S", **offer | changes) is None
        return self.sent_on()

    def sent_on(self) -> bytes:
        """The only packet that was sent to the server; what the balancer is told is left out."""
        out = [each for each in self.stage.core.out if fields(each[1])["dst"] == SERVER[0]]
        ((mark, packet),) = out
        assert mark == MARK | self.dscp
        self.stage.sent()
        seen = fields(packet)
        if "S" in seen["flags"]:
            self.isn, self.source = seen["seq"], (seen["src"], seen["sport"])
        return packet

    def answered(self, **changes: Any) -> bytes:
        """The server's SYN-ACK: what goes on to the client."""
        offer = {"options": raw_options(OFFER), "window": 64240}
        packet = self.from_server(b"", -1, flags="SA", **offer | changes)
        assert packet is not None
        return packet

    def stand(self) -> Plain:
        """The whole handshake, and the server's first word."""
        self.syn()
        self.answered()
        assert self.send() is None
        self.sent_on()
        assert self.from_server(b"220 hello", 0) is not None
        return self


def same(before: bytes, after: bytes | None) -> bool:
    """Whether a packet is the same but for addresses, ports, TTL, DSCP and checksums."""
    assert after is not None
    kept = ("seq", "ack", "flags", "window", "raw_options", "payload")
    one, other = fields(before), fields(after)
    return [one[name] for name in kept] == [other[name] for name in kept]


def test_the_handshake_passes() -> None:
    stage = stage_of()
    it = Plain(stage)
    syn = it.segment(b"", -1, flags="SEC", options=raw_options(OFFER), ack=0)
    assert stage.packet(syn) is None
    to_server = it.sent_on()
    assert same(syn, to_server)
    seen = fields(to_server)
    assert (seen["src"], seen["sport"], seen["dst"], seen["dport"]) == (*it.client, *SERVER)
    assert seen["dscp"] == 0
    offer = {"options": raw_options(OFFER), "window": 64240}
    raw = tcp_packet(SERVER, it.source, seq=it.r, ack=it.isn + 1, flags="SA", **offer)
    back = stage.packet(raw, MARK | it.dscp)
    assert same(raw, back)
    assert back is not None
    seen = fields(back)
    assert (seen["src"], seen["sport"], seen["dst"]) == (VIPS[5], 80, it.client[0])


def test_until_the_server_is_heard_packets_carry_the_mark() -> None:
    """With SYN cookies its socket is made from one of them."""
    stage = stage_of()
    it = Plain(stage)
    it.syn()
    it.answered()
    for payload in (b"", b"EHLO x"):
        segment = it.segment(payload)
        assert stage.packet(segment) is None
        assert same(segment, it.sent_on())
    assert not stage.flow().fast
    assert it.from_server(b"", 0, acked=6) is not None
    assert stage.flow().fast
    segment = it.segment(b"more", 6)
    assert same(segment, stage.packet(segment))


def test_nothing_is_shifted() -> None:
    stage = stage_of()
    it = Plain(stage).stand()
    for options in (models.stamps(1, 2), SACK, b"", models.stamps(1, 2) + SACK):
        up = it.segment(b"abc", 0, acked=9, options=options, window=3)
        assert same(up, stage.packet(up))
        frame = {"seq": it.r + 10, "ack": it.isn + 4, "flags": "PA", "options": options}
        down = tcp_packet(SERVER, it.source, **frame, payload=b"250", window=7)
        assert same(down, stage.packet(down, MARK | it.dscp))


def test_with_the_bridges_own_address_its_numbers_are_its_own() -> None:
    """One after the other from the same ports, in whichever client's name: the server may still
    have the one before in TIME-WAIT (RFC 6191)."""
    stage = stage_of(source="bridge", ports=(20000, 20000))
    seen = []
    for number in range(2):
        it = Plain(stage, ("198.51.100.7", 40000 + number), c=0x80000000)
        it.syn()
        assert it.source == (ADDRESS[0], 20000)
        syn_ack = fields(it.answered())
        assert syn_ack["ack"] == it.c + 1, "the client's own again"
        flow = stage.flow()
        seen.append((it.isn, (7 + flow.stamp_up) % 2**32))
        assert it.from_server(flags="RA") is not None
        stage.at(20.0 * (number + 1))
        stage.core.out.clear()
    assert 0 < (seen[1][0] - seen[0][0]) % 2**32 < 2**31
    assert 0 < (seen[1][1] - seen[0][1]) % 2**32 < 2**31


# --- SYNs of what there is ---


def test_a_syn_of_a_live_connection_goes_to_the_server_and_changes_nothing() -> None:
    stage = stage_of()
    it = Plain(stage).stand()
    flow = stage.flow()
    for seq in (it.c, 0x1234567):
        blind = it.segment(b"", flags="S", seq=seq, ack=0)
        assert stage.packet(blind) is None
        assert same(blind, it.sent_on())
    assert stage.flow() is flow
    assert flow.fast
    segment = it.segment(b"on")
    assert same(segment, stage.packet(segment))


def test_one_that_is_repeated_is_said_to_be_answered() -> None:
    stage = stage_of()
    it = Plain(stage)
    it.syn()
    assert it.syn(), "the server has not answered: nothing is said of it"
    it.answered()
    assert it.send(b"", -1, flags="S", options=raw_options(OFFER), ack=0) is None
    said, _ = stage.sent()
    about = {"b": 0, "seq": it.c, "bridge": ADDRESS[0]}
    assert (said["dst"], said["ack"]) == (VIPS[5], 1)
    none = {"mss": 0, "scales": (15, 15), "sack": False}
    assert said["raw_options"] == it.option(models.ACCEPTED, **about | none)


@pytest.mark.parametrize("source", ["client", "bridge"])
@pytest.mark.parametrize("answered", [False, True])
def test_the_balancer_goes_by_the_latest_syn(source: str, answered: bool) -> None:
    """One of another number may be the client's, which has aborted, or anybody's: the server
    judges, and what is said of the connection names that number."""
    stage = stage_of(source=source)
    it = Plain(stage)
    it.syn()
    if answered:
        it.answered()
    again = {"flags": "S", "options": raw_options(OFFER), "ack": 0, "seq": 0x1234567}
    assert it.send(b"", -1, **again) is None
    told = [each for each in stage.sent() if each["dst"] == VIPS[5]]
    other = {"c": 0x1234567, "b": 0, "seq": 0x1234567}
    none = {"mss": 0, "scales": (15, 15), "sack": False}
    accepted = it.option(models.ACCEPTED, **other | none, bridge=ADDRESS[0])
    assert [each["raw_options"] for each in told] == [accepted] * answered
    stage.core.end(stage.flow(), stage.now)
    (ended,) = (each for each in stage.sent() if each["dst"] == VIPS[5])
    assert ended["seq"] == 0x1234568


def test_the_port_is_used_again() -> None:
    stage = stage_of()
    it = Plain(stage).stand()
    assert it.from_server(flags="RA", at=9) is not None
    assert stage.flow().state is State.LINGER
    it.c += 5_000_000
    it.syn()
    assert stage.flow().state is State.SPLICED
    assert stage.count("flows_replaced") == 1


# --- servers that do not serve ---


def refused(stage: Stage, it: Plain) -> bool:
    """Whether all that is said is that the SYN is given back."""
    stage.core.timers(stage.now, stage.wall - stage.now)
    (said,) = stage.sent()
    about = {"b": 0, "seq": it.c + 1, "bridge": ADDRESS[0]}
    none = {"mss": 0, "scales": (15, 15), "sack": False}
    expected: bytes = it.option(models.REFUSED, **about | none)
    return said["raw_options"] == expected and said["dst"] == VIPS[5]


@pytest.mark.parametrize("why", ["backend_down", "backend_draining", "draining", "no_room"])
def test_a_syn_is_given_back(why: str) -> None:
    stage = stage_of(limits={"flows": 1})
    if why == "backend_down":
        stage.core.mark_server(f"{ADDRESS[0]}:{ADDRESS[1]}", False, "x", stage.now)
    elif why == "backend_draining":
        stage.core.drain_entry(f"{ADDRESS[0]}:{ADDRESS[1]}", True)
    elif why == "draining":
        stage.core.drain(stage.now)
    else:
        Plain(stage, ("198.51.100.1", 1)).stand()
        why = "flow_table_full"
    it = Plain(stage)
    assert it.send(b"", -1, flags="S", ack=0) is None
    assert refused(stage, it)
    assert stage.count(why) == 1


def test_a_server_that_says_nothing() -> None:
    stage = stage_of(connect=1.0)
    it = Plain(stage)
    it.syn()
    stage.at(0.9)
    assert not stage.sent()
    stage.at(1.1)
    assert refused(stage, it)
    assert (stage.count("backend_silent"), stage.core.entries[0].figures.silent) == (1, 1)
    assert not stage.core.table.outbound
    late = it.from_server(b"", -1, flags="SA")
    assert late is None
    reset = stage.reply()
    assert (reset["dst"], reset["flags"], reset["seq"]) == (SERVER[0], "R", it.isn + 1)


def test_a_refusal_goes_to_the_client() -> None:
    """As without a bridge. And the balancer hears that it is over."""
    stage = stage_of()
    it = Plain(stage)
    it.syn()
    packet = it.from_server(b"", -1, flags="RA", seq=0, options=b"", window=0)
    assert packet is not None
    seen = fields(packet)
    assert (seen["src"], seen["flags"], seen["ack"]) == (VIPS[5], "RA", (it.c + 1) % 2**32)
    assert stage.core.entries[0].figures.refused == 1
    assert [said["raw_options"][7] & 7 for said in stage.sent()] == [models.ENDED]
    stage.at(30.0)
    assert not stage.core.table.outbound


# --- ends ---


def test_silence_ends_both_sides() -> None:
    stage = stage_of(timeouts={"idle": 5.0})
    it = Plain(stage).stand()
    assert it.send(b"EHLO", acked=9) is not None
    assert it.from_server(b"", 9, acked=4) is not None
    stage.sent()
    stage.at(25.0)
    by = {packet["dst"]: packet for packet in stage.sent() if packet["flags"] == "R"}
    assert by[it.client[0]]["seq"] == it.r + 1 + 9
    assert by[it.client[0]]["src"] == VIPS[5]
    assert not stage.core.table.outbound


@pytest.mark.parametrize("answered", [False, True])
def test_one_that_is_half_open_ends(answered: bool) -> None:
    """The operator's word: the client looks at the acknowledgment of a RST until it has the
    server's SYN-ACK (RFC 9293 section 3.10.7.3). Without an answer another may serve."""
    stage = stage_of()
    it = Plain(stage)
    it.syn()
    if answered:
        it.answered()
    stage.core.end(stage.flow(), stage.now)
    sent = [packet for packet in stage.sent() if packet["dst"] == it.client[0]]
    (reset,) = sent
    assert (reset["flags"], reset["ack"]) == ("RA", (it.c + 1) % 2**32)


def test_the_balancers_word_ends_the_server() -> None:
    stage = stage_of()
    it = Plain(stage).stand()
    forget = it.option(models.FORGET, b=0)
    packet = {"options": forget, "ack": 1, "flags": "A"}
    assert it.send(**packet) is None
    reset = stage.reply()
    assert (reset["dst"], reset["flags"], reset["seq"]) == (SERVER[0], "R", (it.c + 1) % 2**32)


def test_syns_end_no_connection_that_stands() -> None:
    stage = stage_of(limits={"flows": 16})
    standing = [Plain(stage, ("198.51.100.7", 100 + n)).stand() for n in range(13)]
    for port in range(200):
        Plain(stage, ("203.0.113.99", 1000 + port)).syn()
    assert len(stage.core.table.half_open) <= 2
    assert stage.count("half_open_evicted") == 198
    for it in standing:
        assert it.send(b"x") is not None


# --- what is not known (any more) ---


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_connection_is_picked_up_again(who: str) -> None:
    stage = stage_of()
    it = Plain(stage)
    if who == "client":
        segment = it.segment(b"going on", 1000, acked=9)
        assert stage.packet(segment) is None
        assert same(segment, it.sent_on())
    assert it.from_server(b"so does it", 9) is not None
    assert it.from_server(b"", 19) is not None
    segment = it.segment(b"and on", 1008, acked=19)
    assert same(segment, stage.packet(segment))
    assert stage.count("flows_picked_up") == 1
    assert not stage.core.table.half_open


def test_what_is_not_picked_up() -> None:
    stage = stage_of()
    it = Plain(stage)
    for flags in ("R", "F", "", "SA"):
        assert it.send(flags=flags) is None
    assert it.from_server(flags="SA") is None
    assert it.from_server(flags="RA") is None
    stage.sent()
    direct = it.from_server(b"direct", mark=0)
    assert direct is not None
    assert fields(direct)["src"] == SERVER[0]
    assert not stage.core.table.outbound
    ended = Plain(stage, ("198.51.100.8", 9)).stand()
    stage.core.end(stage.flow(), stage.now)
    assert ended.send() is None
    assert not stage.core.table.outbound, "it has just been ended on purpose"


def test_with_the_bridges_own_address_nothing_is() -> None:
    stage = stage_of(source="bridge")
    it = Plain(stage)
    assert it.send() is None
    assert not stage.core.table.outbound


# --- which ways take what ---


def test_a_way_of_handoffs_takes_no_syn() -> None:
    stage = Stage()
    assert Connection(stage).send(b"", -1, flags="S") is None
    assert stage.count("syn_at_bridge") == 1


@pytest.mark.parametrize("kind", [models.HANDOFF, models.CONFIRM])
def test_a_way_of_syns_takes_no_handoff(kind: int) -> None:
    stage = stage_of()
    assert Connection(stage).handoff(kind=kind) is None
    assert stage.count("not_a_handoff") == 1
    assert not stage.sent()


def test_icmp_reaches_the_server_in_its_own_terms() -> None:
    stage = stage_of()
    it = Plain(stage).stand()
    quoted = tcp_packet((VIPS[5], 80), it.client, seq=77, ack=1, flags="A", payload=bytes(50))
    head = IP(src="10.0.0.9", dst=ADDRESS[0], tos=it.dscp << 2)
    error = bytes(head / ICMP(type=3, code=4, nexthopmtu=1200) / quoted)
    packet = stage.packet(error)
    assert packet is not None
    assert packet[16:20] == bytes(map(int, SERVER[0].split(".")))
    inner = fields(packet[28:])
    assert (inner["src"], inner["sport"], inner["seq"]) == (*SERVER, 77)


def test_a_client_that_gives_up_before_the_server_answers_is_no_failure_of_the_server() -> None:
    stage = stage_of(connect=1.0)
    it = Plain(stage)
    it.syn()
    assert it.send(flags="R") is None
    it.sent_on()
    stage.at(2.0)
    assert stage.core.entries[0].figures.silent == 0
    assert stage.count("backend_silent") == 0
