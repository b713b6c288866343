"""Handoffs and answers that no balancer and no bridge of ours has sent, or not now, or not there.

They are made by the project's own encoder with the lab's key; a download through the same programs
goes on beside them.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP

from common.core.handoff import Kind
from common.core.keys import Keys, derive
from tests.e2e import web
from tests.e2e.capture import RST
from tests.e2e.hostile import Handoff, logged, recorded_handoff, with_options
from tests.e2e.lab import BRIDGE1, BRIDGE2, CLIENT, VIP, Lab, until
from tests.e2e.raw import RawSender, new_port

pytestmark = pytest.mark.root


@pytest.mark.usefixtures("unharmed")
def test_handoff_made_by_hand_is_taken(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """The others below are refused for what is named, as this one is not."""
    port = new_port()
    sender.send(Handoff(keys, port).packet(), host="backend1")
    answer = sender.answer(port, lambda packet: bool(packet.payload))
    assert answer.way == (VIP, CLIENT)
    assert answer.seq == 2_000_001
    assert answer.payload.startswith(b"HTTP/1.1 200 OK")


def _refused_handoffs(keys: Keys, port: int) -> dict[str, tuple[str, Handoff]]:
    other_keys = derive(bytes(32))
    return {
        "other key": ("bad_handoff_mac", Handoff(other_keys, port)),
        "other numbers": ("bad_handoff_mac", Handoff(keys, port, bound_to=999)),
        "old": ("old_handoff_epoch", Handoff(keys, port, age=40)),
        "from the future": ("old_handoff_epoch", Handoff(keys, port, age=-40)),
        "an answer": ("not_a_handoff", Handoff(keys, port, kind=Kind.REFUSED)),
    }


@pytest.mark.parametrize("name", _refused_handoffs(derive(bytes(32)), 0))
@pytest.mark.usefixtures("unharmed")
def test_refused_handoff(lab: Lab, sender: RawSender, keys: Keys, name: str) -> None:
    port = new_port()
    reason, refused = _refused_handoffs(keys, port)[name]
    grown = lab.growth("backend1")
    flows = lab.counters("backend1")["flows"]
    sender.send(refused.packet(), host="backend1")
    assert grown.reaches(reason)
    assert lab.counters("backend1")["flows"] <= flows
    assert sender.answers(port) == []


@pytest.mark.parametrize("length", [2, 4, 15, 20])
@pytest.mark.usefixtures("unharmed")
def test_handoff_option_of_another_length(
    lab: Lab, sender: RawSender, keys: Keys, length: int
) -> None:
    packet = Handoff(keys, new_port()).packet()
    option = bytes([253, length]) + b"\x4c\x33" + bytes(16)
    reason = "unknown_flow" if length == 2 else "bad_handoff_option"
    grown = lab.growth("backend1")
    sender.send(with_options(packet, option[:length].ljust(20, b"\x01")), host="backend1")
    assert grown.reaches(reason)


@pytest.mark.usefixtures("unharmed")
def test_steered_packet_of_unknown_flow(lab: Lab, sender: RawSender, keys: Keys) -> None:
    port = new_port()
    packet = Handoff(keys, port).packet()
    packet[TCP].options = []
    grown = lab.growth("backend1")
    sender.send(packet, host="backend1")
    assert grown.reaches("unknown_flow")
    assert sender.answers(port) == []


@pytest.mark.usefixtures("unharmed")
def test_dscp_of_nobody(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """Not ours: the bridge does not even see it, and the kernel says that nobody listens."""
    port = new_port()
    packet = Handoff(keys, port).packet()
    packet.tos = 5 << 2
    before = lab.counters("backend1")
    sender.send(packet, host="backend1")
    reset = sender.answer(port, lambda packet: bool(packet.flags & RST))
    assert reset.source == BRIDGE1
    after = lab.counters("backend1")
    grown = {name for name, count in after.items() if before.get(name, 0) < count}
    besides = {"packets", "spliced_up", "spliced_down"}
    assert {name for name in grown - besides if not name.startswith("fast_")} == set()


@pytest.mark.usefixtures("unharmed")
def test_damaged_handoff(lab: Lab, sender: RawSender, keys: Keys) -> None:
    """Each bit of the option turned in turn, checksum right: not one is taken."""
    port = new_port()
    good = Handoff(keys, port)
    option = bytes(good.packet()[TCP])[20:36]
    grown = lab.growth("backend1")
    for bit in range(16, 128):  # kind and length apart
        damaged = bytearray(option)
        damaged[bit // 8] ^= 1 << bit % 8
        stamps = bytes(good.packet()[TCP])[36:48]
        sender.send(with_options(good.packet(), bytes(damaged) + stamps), host="backend1")
    names = ("bad_handoff_mac", "bad_handoff_option", "not_a_handoff", "unknown_flow",
             "unknown_flow_reset")  # fmt: skip
    until(lambda: sum(map(grown, names)) == 112, 5, "each is dropped by name")
    assert grown("bad_handoff_mac") > 80
    assert [packet for packet in sender.answers(port) if packet.payload] == []


@pytest.mark.usefixtures("unharmed")
def test_replayed_handoff(lab: Lab, sender: RawSender) -> None:
    """Recorded on the balancer's link, sent again while its connection still lingers."""
    path = lab.path_for("1k", "backend1") + "?replayed"
    packet = recorded_handoff(lab, path)
    grown = lab.growth("backend1")
    for _ in range(5):
        sender.send(packet, host="backend1")
    until(lambda: grown("handoffs_again") + grown("handoff_again") == 5, 2, "all are known")
    assert logged(lab, "?replayed") == 1


@pytest.mark.usefixtures("unharmed")
def test_replayed_handoff_to_another_bridge(lab: Lab, sender: RawSender) -> None:
    """It is authentic there, too; but there it opens a connection of the client's address only,
    whose answer the client does not know, and resets."""
    path = lab.path_for("1k", "backend1") + "?elsewhere"
    packet = bytearray(recorded_handoff(lab, path))
    moved = IP(bytes(packet))
    moved.dst = BRIDGE2
    del moved.chksum
    del moved[TCP].chksum
    sender.send(bytes(moved), host="backend2")
    with lab.connect() as tcp:
        tcp.sendall(web.request(path, close=True))
        assert b"200 OK" in web.rest(tcp)


# --- to the balancer: what a bridge would answer ---


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Kind.ACCEPTED, "bad_answer_mac"),
        (Kind.REFUSED, "bad_answer_mac"),
        (Kind.ENDED, "bad_answer_mac"),
        (Kind.HANDOFF, "not_an_answer"),
        (Kind.FORGET, "not_an_answer"),
    ],
)
@pytest.mark.usefixtures("unharmed")
def test_forged_answer(lab: Lab, sender: RawSender, kind: Kind, reason: str) -> None:
    """With another key, for a connection that is alive: it stays so."""
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k"))
        web.response(tcp)
        forged = Handoff(derive(bytes(32)), tcp.getsockname()[1], kind=kind, payload=b"").packet()
        forged.dst, forged.tos = VIP, 0
        grown = lab.growth("balancer")
        sender.send(forged)
        assert grown.reaches(reason)
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200


@pytest.mark.usefixtures("unharmed")
def test_answer_for_unknown_flow(lab: Lab, sender: RawSender, keys: Keys) -> None:
    answer = Handoff(keys, new_port(), kind=Kind.REFUSED, payload=b"").packet()
    answer.dst, answer.tos = VIP, 0
    grown = lab.growth("balancer")
    sender.send(answer)
    assert grown.reaches("answer_for_unknown_flow")


# --- with a configuration of its own (the download above is over) ---


def test_handoff_of_a_connection_that_is_forgotten(lab: Lab, sender: RawSender) -> None:
    """Once the flow is gone, a note of it refuses the same handoff."""

    def forgetful(text: str) -> str:
        return text + "\n[timeouts]\nidle = 1.0\nclosing = 1.0\nlinger = 0.0\n"

    with lab.configured(backend1=forgetful):
        path = lab.path_for("1k", "backend1") + "?forgotten"
        packet = recorded_handoff(lab, path)
        until(lambda: lab.counters("backend1")["flows"] == 0, 6, "the bridge forgets the flow")
        grown = lab.growth("backend1")
        sender.send(packet, host="backend1")
        assert grown.reaches("handoff_again")
        assert lab.counters("backend1")["flows"] == 0
    assert logged(lab, "?forgotten") == 1
