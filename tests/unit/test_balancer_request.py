"""From the request to the bridge, as scripts: handoff, repetition, steering, answers, errors."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP

from tests.unit import models
from tests.unit.balancer_stage import (
    BRIDGES,
    DSCP,
    REQUEST,
    VIP,
    Client,
    Stage,
    handoff_of,
)
from tests.unit.scapy_oracle import checksums_ok, fields, icmp_error, tcp_packet, udp_packet


def handed(stage: Stage, **client: object) -> tuple[Client, str]:
    """A client whose request has gone to a bridge; that bridge."""
    guest = Client(stage, **client).connect()  # type: ignore[arg-type]
    verdict = guest.send(REQUEST, flags="PA")
    assert verdict is not None
    return guest, fields(verdict)["dst"]


# --- one segment ---


def test_a_request_in_one_segment_goes_on_as_the_handoff() -> None:
    stage = Stage()
    client = Client(stage).connect()
    verdict = client.send(REQUEST, flags="PA", tos=0x02)
    assert verdict is not None
    assert handoff_of(verdict) == client.option(models.HANDOFF, seq=client.c + 1)
    seen, came = fields(verdict), fields(client.segment(REQUEST, flags="PA", tos=0x02))
    assert seen["raw_options"][16:] == models.stamps(client.value, client.echo)
    assert seen["dst"] == stage.bridge_of(b"/a")
    changed = {"dst", "tos", "dscp", "length", "options", "raw_options"}
    assert {k: v for k, v in seen.items() if k not in changed} == {
        k: v for k, v in came.items() if k not in changed
    }
    assert seen["ecn"] == 2, "the ECN bits are not ours"
    assert not stage.sent(), "nothing is acknowledged"
    assert stage.count("handoffs") == 1
    assert stage.sizes() == {"flows": 1}


def test_paths_spread_and_one_path_has_one_bridge() -> None:
    stage = Stage()
    bridges = {}
    for turn in range(2):
        for number in range(12):
            client = Client(stage, ("198.51.100.7", 1000 + turn * 100 + number)).connect()
            verdict = client.send(b"GET /%d HTTP/1.1\r\n\r\n" % number)
            assert verdict is not None
            assert bridges.setdefault(number, fields(verdict)["dst"]) == fields(verdict)["dst"]
    assert set(bridges.values()) == set(BRIDGES)


def test_the_handoff_tells_what_the_client_offered() -> None:
    stage = Stage()
    client = Client(stage, mss=1399, scale=None, sack=False, stamps=False).connect()
    verdict = client.send(REQUEST)
    expected = client.option(models.HANDOFF, seq=client.c + 1, mss=1220)
    assert handoff_of(verdict) == expected, "the cookie rounds the MSS down"
    assert verdict is not None
    assert fields(verdict)["raw_options"] == expected


@pytest.mark.parametrize(("milliseconds", "code"), [(1, 0), (20, 4), (99, 7), (250, 11)])
def test_the_handoff_tells_the_round_trip(milliseconds: int, code: int) -> None:
    stage = Stage()
    client = Client(stage).shake()
    stage.at((milliseconds + 0.5) / 1000)
    client.send()
    stage.at(30)
    verdict = client.send(REQUEST)
    assert handoff_of(verdict) == client.option(models.HANDOFF, seq=client.c + 1, rtt_code=code)


def test_a_full_segments_handoff_fits_the_path() -> None:
    stage = Stage(mtu=1400)
    client = Client(stage).shake()
    told = 1400 - 40 - 16
    payload = (b"GET /" + b"x" * 2000)[: told - 12 - 11] + b" HTTP/1.1\r\n"
    verdict = client.send(payload)
    assert verdict is not None
    assert len(verdict) == 1400


def test_other_options_make_room() -> None:
    stage = Stage()
    client = Client(stage).connect()
    sack = b"\x01\x01\x05\x12" + bytes(16)
    stamps = models.stamps(client.value, client.echo)
    verdict = client.send(REQUEST, options=stamps + sack)
    assert verdict is not None
    assert fields(verdict)["raw_options"][16:] == stamps


# --- several segments ---


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_segments_are_kept_until_the_key_is_known(order: tuple[int, ...]) -> None:
    """Nothing is acknowledged; the handoff goes first, and then the client's own packets."""
    stage = Stage()
    client = Client(stage).connect()
    pieces = [(0, b"GET /long"), (9, b"er/path HTTP"), (21, b"/1.1\r\nHost: h\r\n\r\n")]
    verdicts = [client.send(pieces[turn][1], pieces[turn][0]) for turn in order]
    assert verdicts == [None] * 3, "the last one is sent behind the first"
    packets = [fields(packet) for packet in stage.sent()]
    begun = [(p["seq"] - client.c - 1) % 2**32 for p in packets]
    assert begun == sorted(begun)
    assert begun[0] == 0
    assert {p["dst"] for p in packets} == {packets[0]["dst"]}
    assert {p["dscp"] for p in packets} == {DSCP}
    assert packets[0]["raw_options"][:16] == client.option(models.HANDOFF, seq=client.c + 1)
    assert all(p["raw_options"][0] == 1 for p in packets[1:]), "one handoff only"
    assert [p["payload"] for p in packets] == [piece for _, piece in pieces][: len(packets)]
    assert stage.core.gauges()["buffered_bytes"] == 0


def test_a_segment_after_the_request_line_is_steered() -> None:
    stage = Stage()
    client, bridge = handed(stage)
    data = client.segment(b"more", len(REQUEST))
    verdict = stage.packet(data)
    assert verdict is not None
    assert checksums_ok(verdict)
    seen, came = fields(verdict), fields(data)
    assert (seen.pop("dst"), seen.pop("dscp"), seen.pop("tos")) == (bridge, DSCP, DSCP << 2)
    assert seen == {k: v for k, v in came.items() if k not in ("dst", "dscp", "tos")}


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "RA", "AU", "FPA"])
@pytest.mark.parametrize("options", [b"", b"\x01\x01\x05\x0a" + bytes(8), models.stamps(1, 2)])
def test_every_packet_of_a_handed_flow_is_steered(flags: str, options: bytes) -> None:
    stage = Stage()
    client, bridge = handed(stage)
    verdict = client.send(b"", len(REQUEST), flags=flags, options=options, ip_options=b"\1" * 4)
    assert verdict is not None
    assert checksums_ok(verdict)
    assert (fields(verdict)["dst"], fields(verdict)["flags"]) == (bridge, flags)


def test_the_first_segment_again_is_a_handoff_again_to_the_same_bridge() -> None:
    """And in the same epoch: it is worth no more than the first; but it asks for an answer."""
    stage = Stage()
    client, bridge = handed(stage)
    first = client.option(models.CONFIRM, seq=client.c + 1)
    stage.at(9)  # another epoch
    verdict = client.send(REQUEST, flags="PA")
    assert handoff_of(verdict) == first
    assert verdict is not None
    assert fields(verdict)["dst"] == bridge
    assert stage.count("handoffs_repeated") == 1
    assert stage.count("handoffs") == 1


def test_a_handoff_is_not_repeated_for_ever() -> None:
    """A bridge may have served, closed and forgotten the flow: it must not serve it again."""
    stage = Stage()
    client, bridge = handed(stage)
    stage.at(60)
    verdict = client.send(REQUEST, flags="PA")
    assert verdict is not None
    assert fields(verdict)["dst"] == bridge
    assert fields(verdict)["raw_options"] == models.stamps(client.value, client.echo)
    assert stage.count("handoff_too_late") == 1


@pytest.mark.parametrize(
    ("repeated", "told"),
    [
        ((0.2, 0.6, 1.4, 3.0, 6.2), 12.0),
        ((0.3, 0.9, 2.1, 4.5, 9.3), 12.0),  # the next would come at 18.9
        ((1.0, 3.0, 7.0), 12.0),
        ((0.2, 0.6, 1.4, 3.0, 6.2, 11.9), 12.9),
    ],
)
def test_a_client_that_gets_nothing_for_long_is_told(
    repeated: tuple[float, ...], told: float
) -> None:
    """After its request and its repetitions, however far apart it makes them, where there is no
    other backend."""
    stage = Stage(bridges=BRIDGES[:1])
    client, bridge = handed(stage)
    for when in repeated:
        stage.at(when)
        assert client.send(REQUEST, flags="PA") is not None
    stage.at(told - 0.01)
    assert not stage.sent()
    stage.at(told + 0.01)
    reset, forget = stage.sent()
    assert (fields(reset)["flags"], fields(reset)["dst"]) == ("R", client.address[0])
    assert fields(reset)["seq"] == (client.b + 1) % 2**32
    assert fields(forget)["dst"] == bridge
    assert handoff_of(forget)[7] & 7 == models.FORGET
    assert stage.count("handoff_unanswered") == 1
    assert stage.core.gauges()["flows"] == 0


def test_a_client_that_gets_something_at_last_is_not_told() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    client, _ = handed(stage)
    for repeated in (0.2, 0.6, 1.4, 3.0, 6.2):
        stage.at(repeated)
        client.send(REQUEST, flags="PA")
    stage.at(6.3)
    assert client.send(b"", len(REQUEST), acked=100) is not None
    stage.at(60.0)
    assert not stage.sent()
    assert stage.core.gauges()["flows"] == 1


@pytest.mark.parametrize("late", [(11.0,), (11.0, 11.1, 11.15), (1.0, 100.0)])
def test_late_duplicates_of_a_request_end_nothing(late: tuple[float, ...]) -> None:
    stage = Stage()
    client, bridge = handed(stage)
    assert client.send(b"", len(REQUEST), acked=100) is not None
    for when in late:
        stage.at(when)
        verdict = client.send(REQUEST, flags="PA")
        assert verdict is not None
        assert fields(verdict)["dst"] == bridge
    assert stage.core.gauges()["flows"] == 1


@pytest.mark.parametrize("step", [-3600, -10, 10, 3600])
def test_a_handoff_is_repeated_by_the_clock_as_it_is_set_now(step: float) -> None:
    """So that a bridge believes it whose clock is the right one."""
    stage = Stage()
    client, _ = handed(stage)
    stage.core.timers(stage.now, stage.wall - stage.now + step)
    again = handoff_of(client.send(REQUEST, flags="PA"))
    assert again == models.handoff_option(
        models.CONFIRM,
        client.address,
        VIP,
        c=client.c,
        b=client.b,
        seq=client.c + 1,
        wall=stage.wall + step,
        mss=1460,
        scales=(8, 7),
        sack=True,
    )


def test_a_longer_first_segment_again_is_a_handoff_too() -> None:
    """The client may cut its bytes anew; what starts in the handoff is looked at."""
    stage = Stage()
    client, _ = handed(stage)
    verdict = client.send(REQUEST + b"more", flags="PA")
    assert handoff_of(verdict)
    verdict = client.send(REQUEST[5:], 5)
    assert verdict is not None
    assert fields(verdict)["raw_options"] == models.stamps(client.value, client.echo)


# --- bad requests ---


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x16\x03\x01\x02\x00", "tls_hello"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n", "http2_preface"),
        (b"\xff\xff", "not_http"),
        (b"GET /\x01 HTTP/1.1\r\n", "bad_target"),
    ],
)
def test_a_bad_request_is_reset_by_name(payload: bytes, reason: str) -> None:
    stage = Stage()
    client = Client(stage).connect()
    assert client.send(payload) is None
    answer = stage.reply()
    assert (answer["flags"], answer["seq"]) == ("R", (client.b + 1) % 2**32)
    assert stage.count(reason) == 1
    assert stage.sizes() == {}
    assert client.send(payload) is None
    assert stage.count("closed_flow_again") == 1


def test_a_bad_request_may_go_by_the_clients_address() -> None:
    stage = Stage(bad_request="source-hash")
    for port in (1, 2):
        client = Client(stage, ("198.51.100.9", port)).connect()
        verdict = client.send(b"\x16\x03\x01 not http")
        assert handoff_of(verdict) == client.option(models.HANDOFF, seq=client.c + 1)
        assert verdict is not None
        assert fields(verdict)["dst"] == stage.bridge_of(bytes([198, 51, 100, 9]))
    assert stage.count("source_hashed") == 2


def test_an_over_long_request_line_is_reset_by_name() -> None:
    stage = Stage(max_head=1024)
    client = Client(stage).connect()
    assert client.send(b"GET /" + b"x" * 1200) is None
    assert stage.reply()["flags"] == "R"
    assert stage.count("request_line_too_long") == 1


# --- a bridge's answers ---


def test_refused_by_the_only_backend_is_told_to_the_client() -> None:
    stage = Stage(bridges=BRIDGES[:1], pool={"retries": 0})
    client, _ = handed(stage)
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    answer = stage.reply()
    assert (answer["flags"], answer["seq"], answer["dst"]) == (
        "FPA",
        (client.b + 1) % 2**32,
        client.address[0],
    )
    assert answer["payload"].startswith(b"HTTP/1.1 503 ")
    assert stage.count("backend_refused") == 1
    assert stage.core.gauges()["flows"] == 0


@pytest.mark.parametrize("epochs", [-1, 1])
def test_an_answers_epoch_may_be_one_off(epochs: int) -> None:
    stage = Stage()
    client, _ = handed(stage)
    stage.packet(client.answer(models.REFUSED, rest=REQUEST, wall=stage.wall + 8 * epochs))
    assert stage.count("backend_refused") == 1


@pytest.mark.parametrize("epochs", [-2, 2])
def test_an_answer_of_an_old_epoch_is_dropped_by_name(epochs: int) -> None:
    stage = Stage()
    client, _ = handed(stage)
    stage.packet(client.answer(models.REFUSED, rest=REQUEST, wall=stage.wall + 8 * epochs))
    assert stage.count("old_answer_epoch") == 1
    assert stage.core.gauges()["flows"] == 1


@pytest.mark.parametrize("wrong", [{"c": 1}, {"b": 1}, {"seq": 1}, {"shared": bytes(32)}])
def test_an_answer_with_a_wrong_mac_is_dropped_by_name(wrong: dict[str, int]) -> None:
    stage = Stage()
    client, _ = handed(stage)
    assert stage.packet(client.answer(models.REFUSED, **wrong)) is None
    assert not stage.sent()
    assert stage.count("bad_answer_mac") == 1
    assert stage.core.gauges()["flows"] == 1


def test_a_handoff_turned_round_is_not_an_answer() -> None:
    stage = Stage()
    client, _ = handed(stage)
    for kind in (models.HANDOFF, models.CONFIRM, models.FORGET):
        assert stage.packet(client.answer(kind)) is None
    assert stage.count("not_an_answer") == 3


def test_an_answer_for_an_unknown_flow_is_dropped_by_name() -> None:
    stage = Stage()
    client = Client(stage).connect()
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    assert stage.count("answer_for_unknown_flow") == 1
    assert stage.core.gauges()["waiting"] == 1


@pytest.mark.parametrize(
    "option", [b"\xfd\x08\x4c\x33" + bytes(4), b"\xfd\x10\x4c\x33" + b"\0\0\0\7" + bytes(8)]
)
def test_a_handoff_option_that_is_none_is_dropped_by_name(option: bytes) -> None:
    stage = Stage()
    client, _ = handed(stage)
    assert client.send(b"x", 100, options=option) is None
    assert stage.count("bad_handoff_option") == 1


# --- ICMP errors ---


def test_an_icmp_error_is_steered_to_the_flows_bridge() -> None:
    stage = Stage()
    client, bridge = handed(stage)
    quoted = tcp_packet(VIP, client.address, seq=client.b + 1, flags="A", payload=bytes(1000))
    data = icmp_error("198.51.100.1", VIP[0], quoted[:28], mtu=1300)
    verdict = stage.packet(data)
    assert verdict is not None
    assert checksums_ok(verdict)
    steered, came = IP(verdict), IP(data)
    assert (steered.dst, steered.tos, steered.src) == (bridge, DSCP << 2, came.src)
    assert bytes(steered[ICMP]) == bytes(came[ICMP])
    assert stage.count("icmp_steered") == 1


def test_an_icmp_error_about_an_unknown_flow_is_dropped_by_name() -> None:
    stage = Stage()
    client = Client(stage).connect()
    quoted = tcp_packet(VIP, client.address, flags="A")
    assert stage.packet(icmp_error("198.51.100.1", VIP[0], quoted)) is None
    assert stage.count("icmp_unknown_flow") == 1


@pytest.mark.parametrize(
    "quoted",
    [
        tcp_packet((VIP[0], 22), ("198.51.100.7", 40000)),
        tcp_packet(("198.51.100.7", 40000), VIP),
        udp_packet((VIP[0], 53), ("198.51.100.7", 40000)),
    ],
    ids=["another port", "another address", "udp"],
)
def test_an_icmp_error_about_the_hosts_own_packets_goes_on_to_it(quoted: bytes) -> None:
    stage = Stage()
    data = icmp_error("198.51.100.1", VIP[0], quoted)
    assert stage.packet(data) == data
    assert stage.count("icmp_to_host") == 1


def test_an_icmp_error_that_quotes_too_little_is_dropped_by_name() -> None:
    stage = Stage()
    client, _ = handed(stage)
    quoted = tcp_packet(VIP, client.address, flags="A")
    for cut in (0, 19, 27):
        assert stage.packet(icmp_error("198.51.100.1", VIP[0], quoted[:cut])) is None
    assert stage.count("bad_icmp") == 3


# --- what is not whole ---


def test_malformed_packets_are_dropped_by_name() -> None:
    stage = Stage()
    client, _ = handed(stage)
    whole = client.segment(b"more", 50)
    assert stage.packet(whole[:-1]) is None
    assert stage.count("truncated") == 1
    assert stage.packet(client.segment(b"more", 50, fragment="MF")) is None
    assert stage.count("fragment") == 1
    assert stage.packet(client.segment(b"more", 50, options=b"\x08\x01\x01\x01")) is None
    assert stage.count("bad_tcp_options") == 1
    assert stage.packet(whole[:9] + b"\x84" + whole[10:]) is None  # SCTP
    assert stage.count("other_protocol") == 1


def test_a_steered_packets_wrong_checksum_is_not_healed() -> None:
    stage = Stage()
    client, _ = handed(stage)
    whole = client.segment(b"more", 50)
    verdict = stage.packet(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert verdict is not None
    assert not checksums_ok(verdict)
    assert checksums_ok(verdict[:-1] + whole[-1:])
