"""From the handoff to a spliced connection, as scripts: SYN, held segments, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from packetbridge.core.states import State
from tests.unit import models
from tests.unit.bridge_stage import REQUEST, SERVER, VIPS, Connection, Stage
from tests.unit.scapy_oracle import fields


def options_of(packet: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in packet["options"] if key != "NOP"}


def stamps_of(packet: dict[str, Any]) -> tuple[int, int]:
    pair: tuple[int, int] = options_of(packet)["Timestamp"]
    return pair


# --- the SYN ---


def test_a_handoff_makes_a_syn_in_the_clients_name() -> None:
    stage = Stage()
    connection = Connection(stage, mss=1400)
    syn = connection.asked()
    assert (syn["src"], syn["sport"]) == connection.client
    assert (syn["dst"], syn["dport"]) == SERVER
    assert (syn["seq"], syn["flags"], syn["tos"]) == (connection.c, "S", 0)
    assert syn["payload"] == b""
    assert options_of(syn) == {
        "MSS": 1400,
        "SAckOK": b"",
        "Timestamp": (connection.value, 0),
        "WScale": 8,
    }
    assert syn["window"] == min(501 << 8, 65535), "a SYN's window has no scale"
    assert stage.flow().state is State.SYN_SENT
    assert stage.core.gauges()["held_bytes"] > len(REQUEST)


def test_what_the_client_was_not_promised_is_not_offered() -> None:
    stage = Stage()
    syn = Connection(stage, scales=(15, 15), sack=False, stamps=False).asked()
    assert options_of(syn) == {"MSS": 1460}
    assert syn["window"] == 501


def test_the_syn_carries_the_services_mark() -> None:
    stage = Stage()
    Connection(stage, dscp=6).handoff()
    ((mark, _),) = stage.core.out
    assert mark == 0x4C330006


# --- who may hand over ---


@pytest.mark.parametrize(
    "wrong",
    [{"c": 1}, {"b": 1}, {"seq": 1}, {"shared": bytes(32)}],
)
def test_a_wrong_mac_is_dropped_by_name(wrong: dict[str, Any]) -> None:
    stage = Stage()
    assert Connection(stage).handoff(option=wrong) is None
    assert not stage.sent()
    assert stage.count("bad_handoff_mac") == 1
    assert len(stage.core.table) == 0


def test_a_handoff_of_another_vip_has_a_wrong_mac() -> None:
    stage = Stage()
    Connection(stage, dscp=5).handoff(tos=6 << 2)
    assert stage.count("bad_handoff_mac") == 1


@pytest.mark.parametrize("epochs", [-1, 0, 1])
def test_an_epoch_may_be_one_off(epochs: int) -> None:
    stage = Stage()
    Connection(stage).handoff(option={"wall": stage.wall + 8 * epochs})
    assert stage.reply()["flags"] == "S"


@pytest.mark.parametrize("epochs", [-8, -2, 2, 7])
def test_an_old_epoch_is_dropped_by_name(epochs: int) -> None:
    stage = Stage()
    Connection(stage).handoff(option={"wall": stage.wall + 8 * epochs})
    assert not stage.sent()
    assert stage.count("old_handoff_epoch") == 1


def test_the_same_four_bits_of_another_epoch_are_not_authentic() -> None:
    """128 seconds later the option's four bits are the same again."""
    stage = Stage()
    Connection(stage).handoff(option={"wall": stage.wall - 128})
    assert not stage.sent()
    assert stage.count("bad_handoff_mac") == 1


@pytest.mark.parametrize("ack", [0, 2, 12345])
def test_what_the_client_cannot_have_sent_is_not_held(ack: int) -> None:
    """It has had no byte yet: its acknowledgment is known to the bit."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.value += 1000
    assert connection.send(b"evil", len(REQUEST), ack=(connection.b + ack) % 2**32) is None
    connection.value -= 1000
    assert stage.count("bad_ack_before_spliced") == 1
    connection.syn_ack()
    (held,) = stage.sent()
    assert held["payload"] == REQUEST
    assert stamps_of(held)[0] == connection.value


@pytest.mark.parametrize("kind", [models.ACCEPTED, models.REFUSED])
def test_an_answer_is_no_handoff(kind: int) -> None:
    stage = Stage()
    Connection(stage).handoff(kind=kind)
    assert not stage.sent()
    assert stage.count("not_a_handoff") == 1


def test_a_damaged_handoff_is_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    options = connection.option(models.HANDOFF)
    whole = connection.segment(REQUEST, options=options)
    assert stage.packet(whole[:-1] + b"X") is None
    assert stage.count("bad_tcp_checksum") == 1


def test_a_full_table_is_refused_by_name() -> None:
    stage = Stage(limits={"flows": 1})
    Connection(stage).open()
    second = Connection(stage, ("198.51.100.7", 2))
    second.handoff()
    answer = stage.reply()
    assert answer["raw_options"][:16] == refusal(second)
    assert stage.count("flow_table_full") == 1


# --- the server answers ---


def test_the_syn_ack_releases_the_held_segment() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked(flags="PA")
    connection.syn_ack()
    held = stage.reply()
    assert (held["src"], held["dst"]) == (connection.client[0], SERVER[0])
    assert held["payload"] == REQUEST
    assert held["flags"] == "PA"
    assert held["seq"] == (connection.c + 1) % 2**32
    assert held["ack"] == (connection.r + 1) % 2**32
    assert held["options"][-1] == ("Timestamp", (connection.value, connection.server_value))
    assert held["window"] == 501
    assert stage.flow().state is State.SPLICED


def test_a_repeated_syn_ack_sends_the_held_again_and_changes_nothing() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack()
    first = stage.reply()
    shifts = stage.flow().seq_down, stage.flow().stamp_down
    connection.server_value += 1000
    connection.syn_ack(seq=connection.r + 7)
    again = stage.reply()
    assert {**again, "ident": 0} == {**first, "ident": 0}
    assert (stage.flow().seq_down, stage.flow().stamp_down) == shifts


def test_once_the_server_has_the_request_nothing_is_held() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    assert stage.core.gauges()["held_bytes"] == 0
    connection.syn_ack()
    assert not stage.sent()


@pytest.mark.parametrize("wrong", [{"ack": 5}, {"flags": "S"}])
def test_a_syn_ack_that_is_none_is_dropped_by_name(wrong: dict[str, Any]) -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.from_server(b"", -1, **{"flags": "SA"} | wrong)
    assert not stage.sent()
    assert stage.count("bad_backend_syn_ack") == 1
    assert stage.flow().state is State.SYN_SENT


# --- meanwhile, the client ---


def test_what_the_client_sends_meanwhile_follows_in_order() -> None:
    """With the newest TSval and window, and as TSecr exactly the SYN-ACK's."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    end = len(REQUEST)
    assert connection.send(b"two", end + 3) is None
    connection.value += 5
    assert connection.send(b"one", end, window=600) is None
    assert connection.send(b"", end + 6, flags="FA") is None
    connection.syn_ack()
    held = stage.sent()
    assert [packet["payload"] for packet in held] == [REQUEST, b"one", b"two", b""]
    assert [packet["flags"] for packet in held] == ["A", "A", "A", "FA"]
    stamps = {stamps_of(packet) for packet in held}
    assert stamps == {(connection.value, connection.server_value)}
    assert stage.flow().state is State.SPLICED
    connection.from_server(b"", acked=end + 7)
    assert stage.flow().state is State.CLOSING, "the server has the FIN"


def test_an_early_acknowledgment_is_counted_not_held() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    held = stage.core.gauges()["held_bytes"]
    connection.value += 77
    assert connection.send(b"", len(REQUEST), window=999) is None
    assert stage.count("ack_before_spliced") == 1
    assert stage.core.gauges()["held_bytes"] == held
    connection.syn_ack()
    packet = stage.reply()
    assert packet["window"] == 999
    assert stamps_of(packet)[0] == connection.value


def test_held_bytes_are_bounded() -> None:
    stage = Stage(limits={"held_bytes": 65536})
    connection = Connection(stage)
    connection.asked()
    for number in range(60):
        connection.send(bytes(1400), len(REQUEST) + 1400 * number)
    assert stage.count("held_full") > 10
    assert stage.core.gauges()["held_bytes"] < 65536 + 1500
    stage.at(11)
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}


def test_handoffs_are_refused_once_no_more_may_be_held() -> None:
    """A silent server's clients, each with a request, are no more than anyone's bytes."""
    stage = Stage(limits={"held_bytes": 65536})
    for port in range(100):
        assert Connection(stage, ("198.51.100.7", 2000 + port)).handoff(bytes(1400)) is None
    assert stage.core.gauges()["held_bytes"] < 65536 + 2000
    assert stage.count("held_full") > 10
    refused = [packet for packet in stage.sent() if packet["dst"] == VIPS[5]]
    assert len(refused) == stage.count("held_full")


def test_held_segments_are_bounded() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    for number in range(100):
        connection.send(b"x", len(REQUEST) + number)
    assert stage.count("held_full") == 100 - 63


def test_what_is_counted_is_what_is_held() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.send(b"x", len(REQUEST), options=b"\x01" * 40)
    connection.send(b"xy", len(REQUEST), options=b"")
    opening = stage.flow().opening
    assert opening is not None
    assert stage.core.gauges()["held_bytes"] == opening.held_bytes
    assert stage.count("held_full") == 0


def test_a_damaged_segment_is_not_held() -> None:
    """It would leave with a new, right checksum."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    whole = connection.segment(b"more", len(REQUEST))
    assert stage.packet(whole[:-1] + b"X") is None
    assert stage.count("bad_tcp_checksum") == 1
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST


def test_a_clients_syn_is_not_held() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    assert connection.send(b"data", len(REQUEST), flags="S") is None
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST


def test_a_reset_of_the_client_ends_the_opening() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.send(b"", len(REQUEST), flags="R")
    assert len(stage.core.table) == 0
    assert stage.reply()["dst"] == connection.vip[0], "the balancer is told"
    connection.syn_ack()
    answer = stage.reply()
    assert (answer["flags"], answer["seq"]) == ("R", (connection.c + 1) % 2**32)
    assert stage.count("late_packet") == 1


# --- refusals ---


def refusal(connection: Connection) -> bytes:
    return connection.answer(models.REFUSED, REQUEST)


def test_a_server_that_resets_is_refused_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked(flags="PA")
    assert connection.from_server(b"", 0, flags="RA", seq=0, options=b"") is None
    answer = stage.reply()
    assert (answer["src"], answer["sport"]) == connection.client
    assert (answer["dst"], answer["dport"]) == connection.vip
    assert answer["raw_options"] == refusal(connection) + models.stamps(
        connection.value, connection.echo
    )
    assert answer["payload"] == REQUEST, "the held segment itself comes back"
    assert answer["seq"] == (connection.c + 1) % 2**32
    assert answer["tos"] == 0
    assert stage.count("backend_refused") == 1
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}


@pytest.mark.parametrize("wrong", [{"flags": "R"}, {"ack": 77}])
def test_a_reset_that_proves_nothing_is_not_heeded(wrong: dict[str, Any]) -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.from_server(b"", 0, **{"flags": "RA", "seq": 0} | wrong)
    assert not stage.sent()
    assert stage.flow().state is State.SYN_SENT


@pytest.mark.parametrize("connect", [1.0, 7.0])
def test_a_silent_server_is_asked_three_times_and_given_up_in_time(connect: float) -> None:
    """SYNs after a seventh of the time and after three, the third from another port."""
    stage = Stage(connect=connect)
    connection = Connection(stage)
    first = connection.asked()
    for part in (1, 3):
        stage.at(connect * part / 7 - 0.001)
        assert not stage.sent()
        stage.at(connect * part / 7 + 0.001)
        again = stage.reply()
        assert (again["sport"] == first["sport"]) == (part == 1)
        assert again["options"] == first["options"]
    stage.at(connect - 0.001)
    assert not stage.sent()
    stage.at(connect + 0.001)
    assert stage.reply()["raw_options"][:16] == refusal(connection)
    assert stage.count("backend_silent") == 1
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}


def test_a_server_is_given_a_second_by_default() -> None:
    stage = Stage()
    Connection(stage).asked()
    stage.at(0.999)
    assert stage.core.gauges()["flows"] == 1
    stage.at(1.001)
    assert stage.core.gauges()["flows"] == 0


def test_the_third_syn_comes_from_another_port() -> None:
    """The client's own may be in use between the two directly, which is not seen here."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    stage.at(0.5)
    *_, syn = stage.sent()
    assert syn["src"] == connection.client[0]
    connection.source = (syn["src"], syn["sport"])
    connection.syn_ack()
    held = stage.reply()
    assert (held["sport"], held["payload"]) == (syn["sport"], REQUEST)
    down = connection.from_server(b"answer", acked=len(REQUEST))
    assert down is not None
    assert fields(down)["dport"] == connection.client[1]
    connection.source = connection.client
    connection.from_server(b"", -1, flags="SA")
    late = stage.reply()
    assert (late["flags"], late["sport"]) == ("R", connection.client[1]), "what comes too late"


# --- TIME-WAIT at the server ---


def test_time_wait_is_met_with_its_own_reset_and_a_new_syn() -> None:
    stage = Stage()
    connection = Connection(stage)
    syn = connection.asked()
    assert connection.from_server(b"", 500, ack=0xABCDEF) is None
    reset, again = stage.sent()
    assert (reset["flags"], reset["seq"], reset["options"]) == ("R", 0xABCDEF, [])
    assert again == syn
    assert stage.count("time_wait_resets") == 1
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST


def test_time_wait_is_met_twice_at_most() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    for _ in range(5):
        connection.from_server(b"", 500, ack=0xABCDEF)
    assert len(stage.sent()) == 4
    stage.at(20)
    assert stage.count("backend_silent") == 1


# --- holding the handshake ---


@pytest.mark.parametrize(
    ("hold", "bbr", "code", "seconds"),
    [
        ("on", False, 6, 0.050),
        ("off", True, 12, 0),
        ("auto", False, 6, 0),
        ("auto", True, 2, 0),
    ],
)
def test_the_handshake_is_held_for_the_clients_round_trip(
    hold: str, bbr: bool, code: int, seconds: float
) -> None:
    stage = Stage(hold_handshake=hold, bbr=bbr)
    connection = Connection(stage, rtt_code=code)
    connection.asked()
    connection.syn_ack()
    if seconds:
        connection.send(b"more", len(REQUEST))
        stage.at(seconds - 0.002)
        connection.syn_ack()
        assert not stage.sent()
        stage.at(seconds + 0.002)
        assert len(stage.sent()) == 2
    else:
        assert stage.reply()["payload"] == REQUEST
    assert stage.flow().state is State.SPLICED


def test_a_lost_refusal_is_given_again() -> None:
    """The repeated handoff opens nothing, but the balancer must learn what became of the first."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.from_server(b"", flags="RA", acked=0, options=b"")
    (refused,) = stage.sent()
    assert connection.handoff() is None
    (again,) = stage.sent()
    assert (again["dst"], again["seq"]) == (refused["dst"], refused["seq"])
    assert again["payload"] == refused["payload"] == REQUEST
    assert len(stage.core.table) == 0


@pytest.mark.parametrize(("bbr", "code"), [(False, 9), (True, 6)])
def test_a_server_that_would_time_the_bridge_is_asked_twice(bbr: bool, code: int) -> None:
    """Its SYN-ACK being a retransmission, and the echo 0, it takes no sample, and nobody waits."""
    stage = Stage(hold_handshake="auto", bbr=bbr)
    connection = Connection(stage, rtt_code=code)
    first = connection.asked()
    connection.syn_ack()
    again = stage.reply()
    same = ("flags", "seq", "window", "raw_options", "sport")
    assert [again[name] for name in same] == [first[name] for name in same]
    connection.syn_ack()
    held = stage.reply()
    assert held["payload"] == REQUEST
    assert stamps_of(held) == (connection.value, 0)
    assert stage.flow().state is State.SPLICED
    assert stage.count("handshakes_unsampled") == 1


def test_a_server_that_answers_once_is_waited_for() -> None:
    stage = Stage(hold_handshake="auto", bbr=True)
    connection = Connection(stage, rtt_code=6)
    connection.asked()
    connection.syn_ack()
    stage.sent()
    stage.at(0.048)
    assert not stage.sent()
    stage.at(0.052)
    held = stage.reply()
    assert (held["payload"], stamps_of(held)[1]) == (REQUEST, connection.server_value)
