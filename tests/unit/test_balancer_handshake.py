"""The balancer's side of the client's handshake, as scripts: SYN, cookie, strangers."""

from __future__ import annotations

import pytest

from tests.unit import models
from tests.unit.balancer_stage import REQUEST, VIP, Client, Stage, handoff_of
from tests.unit.scapy_oracle import raw_options, tcp_packet


def option_of(packet: dict, name: str) -> object:  # type: ignore[type-arg]
    return dict(packet["options"]).get(name)


def test_the_syn_ack_promises_what_the_service_does_cut_to_the_offer() -> None:
    stage = Stage()
    client = Client(stage)
    assert client.syn() is None
    answer = stage.reply()
    assert (answer["src"], answer["sport"]) == VIP
    assert (answer["dst"], answer["dport"]) == client.address
    assert answer["flags"] == "SA"
    assert answer["ack"] == (client.c + 1) % 2**32
    assert answer["window"] <= 16384
    assert option_of(answer, "MSS") == 1500 - 40 - 16, "the handoff option must fit beside it"
    assert option_of(answer, "WScale") == 7
    assert option_of(answer, "SAckOK") == b""
    assert option_of(answer, "Timestamp") == (int(stage.wall * 1000) % 2**32, client.value)
    assert stage.count("syn") == 1
    assert stage.core.gauges()["waiting"] == 0, "a SYN is not remembered"


def test_the_cookie_is_the_models() -> None:
    stage = Stage()
    client = Client(stage).shake()
    expected = models.cookie(
        client.address, VIP, client.c, wall=stage.wall, mss_index=3, sack=True, scale=8
    )
    assert client.b == expected


def test_the_mss_is_the_smallest_paths() -> None:
    stage = Stage(mtu=1400)
    Client(stage).syn()
    assert option_of(stage.reply(), "MSS") == 1400 - 40 - 16


@pytest.mark.parametrize("window", [1024, 65535])
def test_the_window_is_what_will_be_kept(window: int) -> None:
    stage = Stage(max_head=window)
    Client(stage).syn()
    assert stage.reply()["window"] == window


@pytest.mark.parametrize(
    ("name", "lacking"),
    [("WScale", {"scale": None}), ("SAckOK", {"sack": False}), ("Timestamp", {"stamps": False})],
)
def test_what_was_not_offered_is_not_promised(name: str, lacking: dict[str, bool | None]) -> None:
    stage = Stage()
    Client(stage, **lacking).syn()  # type: ignore[arg-type]
    names = {key for key, _ in stage.reply()["options"]}
    assert names - {"NOP"} == {"MSS", "WScale", "SAckOK", "Timestamp"} - {name}


def test_what_the_service_does_not_promise_is_not_promised() -> None:
    stage = Stage(sack=False, timestamps=False)
    client = Client(stage)
    client.syn()
    answer = stage.reply()
    assert [name for name, _ in answer["options"] if name not in ("NOP", "EOL")] == [
        "MSS",
        "WScale",
    ]


def test_a_syn_without_options_is_answered() -> None:
    stage = Stage()
    Client(stage).syn(options=b"")
    answer = stage.reply()
    assert [key for key, _ in answer["options"]] == ["MSS"]
    assert answer["seq"] & 0x7F == 15, "MSS 536, no SACK, no scale"


def test_fast_open_data_is_not_acknowledged() -> None:
    stage = Stage()
    client = Client(stage)
    client.syn(options=raw_options([("MSS", 1460), ("TFO", (1, 2))]), payload=REQUEST)
    answer = stage.reply()
    assert answer["ack"] == (client.c + 1) % 2**32
    assert [key for key, _ in answer["options"]] == ["MSS"]


def test_explicit_congestion_notification_is_declined() -> None:
    stage = Stage()
    Client(stage).syn(flags="SEC", tos=2)
    answer = stage.reply()
    assert answer["flags"] == "SA"
    assert answer["tos"] == 0


@pytest.mark.parametrize("kind", [19, 29])
def test_a_signed_syn_is_dropped_by_name(kind: int) -> None:
    stage = Stage()
    assert Client(stage).syn(options=bytes([kind, 18]) + bytes(18)) is None
    assert not stage.sent()
    assert stage.count("tcp_md5_syn") == 1


@pytest.mark.parametrize("flags", ["SA", "SF", "SR", "SU", "SFPU"])
def test_odd_flags_beside_syn_are_dropped_by_name(flags: str) -> None:
    stage = Stage()
    assert Client(stage).syn(flags=flags) is None
    assert not stage.sent()
    assert stage.count("bad_syn_flags") == 1


def test_a_damaged_syn_is_dropped_by_name() -> None:
    stage = Stage()
    packet = bytearray(tcp_packet(("198.51.100.7", 4), VIP, flags="S"))
    packet[26] ^= 1
    assert stage.packet(bytes(packet)) is None
    assert not stage.sent()
    assert stage.count("bad_tcp_checksum") == 1


def test_a_packet_for_another_port_is_no_services() -> None:
    """A service's that is not configured any more; its clients are not to wait."""
    stage = Stage()
    there, here = ("198.51.100.7", 4), (VIP[0], 81)
    for flags in ("A", "SA", "R"):
        assert stage.packet(tcp_packet(there, here, flags=flags)) is None
    assert not stage.sent()
    assert stage.packet(tcp_packet(there, here, flags="S", seq=7, payload=b"abc")) is None
    refused = stage.reply()
    assert (refused["flags"], refused["seq"], refused["ack"]) == ("RA", 0, 11)
    assert (refused["src"], refused["dst"]) == (here[0], there[0])
    assert stage.count("no_service") == 4


# --- the cookie comes back ---


def test_the_acknowledgment_makes_a_flow() -> None:
    stage = Stage()
    Client(stage).connect()
    assert not stage.sent()
    assert stage.core.gauges()["waiting"] == 1
    assert stage.count("connections") == 1


def test_a_cookie_is_good_for_this_epoch_and_the_next() -> None:
    stage = Stage()
    client = Client(stage).shake()
    stage.at(124)  # 127 seconds after the epoch's begin
    client.send()
    assert stage.core.gauges()["waiting"] == 1


@pytest.mark.parametrize("seconds", [125, 189, 253])
def test_an_older_cookie_is_a_strangers(seconds: float) -> None:
    stage = Stage()
    client = Client(stage).shake()
    stage.at(seconds)
    assert client.send() is None
    assert stage.core.gauges()["waiting"] == 0
    assert stage.count("unknown_flow") == 1


@pytest.mark.parametrize("wrong", [{"seq": 17}, {"ack": 99}, {"ack": 0}])
def test_a_wrong_cookie_is_a_strangers(wrong: dict[str, int]) -> None:
    stage = Stage()
    client = Client(stage).shake()
    assert client.send(**wrong) is None
    assert stage.count("unknown_flow") == 1
    assert stage.core.gauges()["waiting"] == 0


def test_another_clients_cookie_is_a_strangers() -> None:
    stage = Stage()
    client = Client(stage).shake()
    client.address = ("198.51.100.7", 40001)
    client.send()
    assert stage.count("unknown_flow") == 1


def test_a_request_may_come_with_the_acknowledgment() -> None:
    stage = Stage()
    verdict = Client(stage).shake().send(REQUEST, flags="PA")
    handoff_of(verdict)
    assert stage.core.gauges()["flows"] == 1
