"""A spliced connection's packets, as scripts: both directions, its end, its revival, its expiry."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IP

from packetbridge.core.states import State
from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, MARK, REQUEST, SERVER, VIPS, Connection, Stage
from tests.unit.scapy_oracle import (
    checksums_ok,
    fields,
    icmp_error,
    ip_checksum_ok,
    tcp_packet,
    udp_packet,
)

END = len(REQUEST)


def spliced(stage: Stage | None = None, **client: object) -> Connection:
    return Connection(stage or Stage(), **client).open()  # type: ignore[arg-type]


# --- both directions ---


def test_the_servers_packets_leave_from_the_vip() -> None:
    connection = spliced()
    verdict = connection.from_server(b"HTTP/1.1 200", acked=END, tos=0x2B, window=1000)
    assert verdict is not None
    assert checksums_ok(verdict)
    seen = fields(verdict)
    assert (seen["src"], seen["sport"]) == connection.vip
    assert (seen["dst"], seen["dport"]) == connection.client
    assert seen["seq"] == (connection.b + 1) % 2**32
    assert seen["ack"] == (connection.c + 1 + END) % 2**32
    assert dict(seen["options"])["Timestamp"] == (connection.echo, connection.value)
    assert (seen["tos"], seen["window"]) == (0x03, 4000)
    assert seen["payload"] == b"HTTP/1.1 200"


def test_the_clients_packets_go_to_the_server() -> None:
    connection = spliced()
    connection.value += 1
    connection.echo += 10
    verdict = connection.send(b"more", END, acked=500, tos=(5 << 2) | 2)
    assert verdict is not None
    assert checksums_ok(verdict)
    seen = fields(verdict)
    assert (seen["src"], seen["sport"]) == connection.client
    assert (seen["dst"], seen["dport"]) == SERVER
    assert seen["seq"] == (connection.c + 1 + END) % 2**32
    assert seen["ack"] == (connection.r + 501) % 2**32
    assert dict(seen["options"])["Timestamp"] == (connection.value, connection.server_value + 10)
    assert seen["tos"] == 2


@pytest.mark.parametrize(("local", "up", "down"), [(True, 63, 63), (False, 64, 64)])
def test_a_hop_is_counted_where_the_kernel_does_not(local: bool, up: int, down: int) -> None:
    connection = spliced(Stage(local=local))
    for options in (b"", b"\x01" * 4):
        sent = connection.send(b"", END, options=options)
        back = connection.from_server(b"", acked=END, options=options)
        assert sent is not None
        assert back is not None
        assert (fields(sent)["ttl"], fields(back)["ttl"]) == (up, down)


def test_a_repeated_handoff_is_a_plain_segment() -> None:
    stage = Stage()
    connection = spliced(stage)
    verdict = connection.handoff()
    assert verdict is not None
    seen = fields(verdict)
    assert seen["payload"] == REQUEST
    assert seen["raw_options"][:16] == b"\x01" * 16, "our option is not for the server"
    assert not stage.sent()
    assert stage.count("handoffs_again") == 1


def test_a_clients_syn_is_dropped_by_name() -> None:
    stage = Stage()
    connection = spliced(stage)
    assert connection.send(b"", END, flags="S") is None
    assert stage.count("syn_at_bridge") == 1


# --- the end ---


def ended_option(connection: Connection) -> bytes:
    """What tells the balancer: an answer has no more to say than its kind."""
    values = {"mss": 0, "rtt_code": 0, "scales": (15, 15), "sack": False}
    return connection.option(models.ENDED, **values)


def test_ends_of_one_turn_are_told_together() -> None:
    stage = Stage()
    connections = [Connection(stage, ("198.51.100.7", port)).open() for port in range(1, 67)]
    for connection in connections:
        connection.from_server(flags="RA", acked=END)
    first, second = stage.sent()
    assert len(first["payload"]) == 64 * 14
    assert [first["sport"], second["sport"]] == [1, 66]
    item = bytes([198, 51, 100, 7, 0, 2]) + struct.pack("!II", connections[1].c, connections[1].b)
    assert first["payload"][:14] == item
    values = {"mss": 0, "scales": (15, 15), "sack": False, "rest": first["payload"]}
    option = connections[0].option(models.ENDED, **values)
    assert first["raw_options"][:16] == option
    assert not stage.sent()


def test_both_sides_end_and_the_flow_lingers() -> None:
    stage = Stage(timeouts={"linger": 10.0})
    connection = spliced(stage)
    assert connection.send(b"", END, flags="FA") is not None
    assert stage.flow().state is State.SPLICED
    assert connection.from_server(b"rest", acked=END + 1) is not None
    assert stage.flow().state is State.CLOSING, "the server has the FIN"
    assert connection.from_server(b"", 4, flags="FA", acked=END + 1) is not None
    assert stage.flow().state is State.LINGER
    (ended,) = stage.sent()
    assert ended["raw_options"] == ended_option(connection)
    assert (ended["src"], ended["dst"]) == (connection.client[0], VIPS[5])
    stage.at(5)
    assert connection.send(b"", END + 1, acked=5) is not None, "late packets are translated"
    stage.at(40)
    assert len(stage.core.table) == 0
    assert not stage.sent()
    assert stage.count("flows_expired") == 1


def test_a_repeated_fin_changes_nothing() -> None:
    stage = Stage()
    connection = spliced(stage)
    for _ in range(3):
        assert connection.from_server(b"", flags="FA", acked=END) is not None
        assert stage.flow().state is State.CLOSING
    for _ in range(3):
        assert connection.send(b"", END, flags="FA") is not None
        assert connection.from_server(b"", 1, acked=END + 1) is not None
        assert stage.flow().state is State.LINGER


def test_a_fin_that_the_server_never_takes_ends_nothing() -> None:
    stage = Stage(timeouts={"closing": 5.0, "idle": 100.0})
    connection = spliced(stage)
    assert connection.send(b"", END + 70_000, flags="FA") is not None, "the server judges"
    assert stage.flow().fast, "whoever sends it cannot slow the connection down"
    assert connection.from_server(b"x", acked=END) is not None
    assert connection.send(b"more", END) is not None
    stage.at(60)
    assert stage.flow().state is State.SPLICED
    assert connection.from_server(b"", 1, acked=END + 70_002) is not None, "data went past it"
    assert stage.flow().state is State.SPLICED
    assert stage.flow().fast


def test_an_inexact_reset_from_the_client_is_passed_on_and_ends_nothing() -> None:
    stage = Stage(timeouts={"linger": 5.0, "idle": 100.0})
    connection = spliced(stage)
    for offset in (END - 1, END + 1, 12345):
        assert connection.send(b"", offset, flags="R") is not None
    assert stage.count("inexact_reset") == 3
    stage.at(60)
    assert stage.flow().state is State.SPLICED


def test_after_an_inexact_reset_the_server_is_asked_once_a_second() -> None:
    """By a keep-alive probe, which says nothing new: a RST may be the client's, sent ahead of what
    the server has said that it has."""
    stage = Stage()
    connection = spliced(stage)
    for _ in range(3):
        connection.send(b"", END + 700, flags="R")
    assert not stage.sent()
    stage.at(1.5)
    probe = stage.reply()
    assert (probe["dst"], probe["flags"], probe["payload"]) == (SERVER[0], "A", b"")
    assert probe["seq"] == (connection.isn + END) % 2**32
    assert probe["ack"] == (connection.r + 1) % 2**32
    assert connection.from_server(acked=END) is not None
    stage.at(60)
    assert not stage.sent(), "it has answered"
    assert stage.flow().state is State.SPLICED
    connection.send(b"", END + 700, flags="R")
    stage.at(62)
    assert stage.reply() == probe


def test_a_server_that_took_an_inexact_reset_says_so_when_asked() -> None:
    stage = Stage()
    connection = spliced(stage)
    connection.send(b"", END + 700, flags="R")
    stage.at(1.5)
    probe = stage.reply()
    verdict = connection.from_server(flags="R", seq=probe["ack"], ack=0, options=b"", mark=0)
    assert verdict is not None
    assert stage.flow().state is State.LINGER
    assert stage.reply()["raw_options"] == ended_option(connection)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_is_passed_on_and_lingers(side: str) -> None:
    stage = Stage()
    connection = spliced(stage)
    if side == "client":
        verdict = connection.send(b"", END, flags="R", ack=0)
        assert verdict is not None
        assert fields(verdict)["ack"] == 0, "an acknowledgment number without its flag"
    else:
        verdict = connection.from_server(b"", flags="RA", options=b"")
        assert verdict is not None
    assert "R" in fields(verdict)["flags"]
    assert stage.flow().state is State.LINGER


def test_a_side_that_goes_on_after_its_reset_revives_the_flow() -> None:
    stage = Stage()
    connection = spliced(stage)
    connection.send(b"", END, flags="R")
    assert connection.from_server(b"data", acked=END) is not None  # was on its way already
    assert stage.flow().state is State.LINGER
    connection.send(b"", END)
    assert stage.flow().state is State.SPLICED
    stage.at(300)
    assert len(stage.core.table) == 1


def test_a_revived_flow_can_end() -> None:
    stage = Stage()
    connection = spliced(stage)
    connection.from_server(b"", flags="FA", acked=END)
    connection.send(b"", END, flags="R")
    connection.send(b"", END)
    assert stage.flow().state is State.SPLICED
    connection.send(b"", END, flags="FA")
    connection.from_server(b"", 4, flags="FA", acked=END + 1)
    assert stage.flow().state is State.LINGER


def test_expiry_resets_both_with_the_exact_numbers() -> None:
    stage = Stage(timeouts={"idle": 100.0})
    connection = spliced(stage)
    connection.from_server(b"x" * 500, acked=END)
    connection.send(b"more", END, acked=500)
    connection.from_server(b"", 500, acked=END + 4)
    stage.at(90)
    assert not stage.sent()
    stage.at(120)
    client, server, ended = stage.sent()
    assert ended["raw_options"][7] & 7 == models.ENDED
    assert (client["src"], client["dst"]) == (VIPS[5], connection.client[0])
    assert (client["flags"], client["seq"]) == ("R", (connection.b + 501) % 2**32)
    assert (server["src"], server["dst"]) == (connection.client[0], SERVER[0])
    assert (server["flags"], server["seq"]) == ("R", (connection.c + 1 + END + 4) % 2**32)
    assert len(stage.core.table) == 0


def test_a_bridge_that_goes_ends_what_it_has() -> None:
    stage = Stage()
    connection = spliced(stage)
    asking = Connection(stage, ("198.51.100.8", 1))
    asking.asked()
    over = Connection(stage, ("198.51.100.9", 1)).open()
    over.send(b"", END, flags="R")
    stage.sent()
    for _ in stage.core.farewell(stage.now):
        pass
    client, server, ended, refused = stage.sent()
    assert (client["dst"], client["flags"]) == (connection.client[0], "R")
    assert (server["dst"], server["flags"]) == (SERVER[0], "R")
    assert ended["raw_options"] == ended_option(connection)
    assert (refused["src"], refused["payload"]) == (asking.client[0], REQUEST)


# --- new incarnations, replays, FORGET ---


def test_a_new_incarnation_resets_the_old_and_opens() -> None:
    stage = Stage()
    old = spliced(stage)
    new = Connection(stage, c=77, b=88)
    new.handoff()
    reset, syn = stage.sent()
    assert (reset["flags"], reset["dst"]) == ("R", SERVER[0])
    assert reset["seq"] == (old.c + 1 + END) % 2**32
    assert (syn["flags"], syn["seq"]) == ("S", 77)
    assert stage.count("flows_replaced") == 1
    assert len(stage.core.table) == 1


def test_a_replay_after_the_end_opens_nothing() -> None:
    stage = Stage(timeouts={"linger": 1.0})
    connection = spliced(stage)
    connection.send(b"", END, flags="R")
    stage.at(4)
    stage.sent()
    assert len(stage.core.table) == 0
    replay = connection.option(models.HANDOFF, wall=stage.wall - 4)
    assert connection.send(REQUEST, options=replay + models.stamps(1, 2)) is None
    answer = stage.reply()
    assert (answer["dst"], answer["raw_options"][7] & 7) == (VIPS[5], models.ENDED)
    assert stage.count("handoff_again") == 1


def test_forget_resets_the_server_and_forgets() -> None:
    stage = Stage()
    connection = spliced(stage)
    assert connection.handoff(b"", kind=models.FORGET) is None
    reset = stage.reply()
    assert (reset["flags"], reset["dst"]) == ("R", SERVER[0])
    assert reset["seq"] == (connection.c + 1 + END) % 2**32
    assert len(stage.core.table) == 0
    assert connection.handoff() is None
    assert stage.count("handoff_again") == 1


def test_forget_of_another_incarnation_does_nothing() -> None:
    stage = Stage()
    spliced(stage)
    other = Connection(stage, c=77, b=88)
    assert other.handoff(b"", kind=models.FORGET) is None
    assert not stage.sent()
    assert len(stage.core.table) == 1


# --- two VIPs, own source ---


def test_one_client_port_at_two_vips_gets_another_port() -> None:
    stage = Stage()
    first = spliced(stage)
    second = Connection(stage, dscp=6, c=5, b=6)
    second.asked()
    assert second.source[0] == first.source[0]
    assert second.source[1] != first.source[1]
    second.syn_ack()
    stage.sent()
    for connection, vip in ((first, VIPS[5]), (second, VIPS[6])):
        back = connection.from_server(b"data", acked=END)
        assert back is not None
        assert fields(back)["src"] == vip
        assert (fields(back)["dst"], fields(back)["dport"]) == connection.client
        up = connection.send(b"more", END)
        assert up is not None
        assert fields(up)["sport"] == connection.source[1]


def test_own_source_shifts_both_ways() -> None:
    stage = Stage(source="bridge", ports=(20000, 20003))
    connection = Connection(stage)
    syn = connection.asked()
    assert (syn["src"], syn["sport"]) == (ADDRESS[0], 20000)
    isn, own = syn["seq"], dict(syn["options"])["Timestamp"][0]
    assert isn != connection.c
    assert own == int(stage.wall * 1000) % 2**32
    connection.syn_ack()
    held = stage.reply()
    assert (held["seq"], held["ack"]) == ((isn + 1) % 2**32, (connection.r + 1) % 2**32)
    assert dict(held["options"])["Timestamp"] == (own, connection.server_value)
    shift = own - connection.value
    back = connection.from_server(
        b"data", acked=END, options=models.stamps(connection.server_value + 1, own)
    )
    assert back is not None
    assert fields(back)["ack"] == (connection.c + 1 + END) % 2**32
    assert dict(fields(back)["options"])["Timestamp"] == (connection.echo + 1, connection.value)
    connection.value += 3
    assert connection.send(b"more", END) is None, "it is sent as a packet of this host"
    up = stage.reply()
    assert up["seq"] == (isn + 1 + END) % 2**32
    assert dict(up["options"])["Timestamp"][0] == (connection.value + shift) % 2**32
    assert (up["src"], up["sport"]) == (ADDRESS[0], 20000)


def test_own_ports_take_turns_and_run_out_by_name() -> None:
    stage = Stage(source="bridge", ports=(20000, 20002))
    ports = [Connection(stage, ("198.51.100.7", n)).asked()["sport"] for n in range(1, 4)]
    assert ports == [20000, 20001, 20002]
    Connection(stage, ("198.51.100.7", 9)).handoff()
    assert stage.reply()["raw_options"][7] & 7 == models.REFUSED
    assert stage.count("no_source_port") == 1


# --- ICMP ---


@pytest.mark.parametrize("quoted_bytes", [28, 37, 38, 52, 61, 400, 1076])
@pytest.mark.parametrize("source", ["client", "bridge"])
def test_an_icmp_errors_quotation_becomes_what_the_server_sent(
    quoted_bytes: int, source: str
) -> None:
    stage = Stage(source=source)
    connection = spliced(stage)
    stamps = models.stamps(connection.server_value, connection.value)
    sent = tcp_packet(
        SERVER,
        connection.source,
        seq=connection.r + 1,
        ack=connection.isn + 1 + END,
        options=stamps,
        payload=bytes(range(256)) * 4,
    )
    left = stage.packet(sent, MARK | 5)
    assert left is not None
    error = bytearray(icmp_error("198.51.100.1", ADDRESS[0], left[:quoted_bytes], mtu=1300))
    error[1] = (5 << 2) | 1
    header = IP(bytes(error))
    del header.chksum
    verdict = stage.packet(bytes(header))
    assert verdict is not None
    assert checksums_ok(verdict)
    message = IP(verdict)
    assert (message.dst, message.src, message.tos) == (SERVER[0], "198.51.100.1", 1)
    assert message.payload.nexthopmtu == 1300
    quoted = verdict[28:]
    assert len(quoted) == quoted_bytes
    assert quoted[12:20] == sent[12:20]
    assert quoted[20:28] == sent[20:28], "ports and sequence number"
    assert ip_checksum_ok(quoted)
    assert quoted_bytes < len(sent) or checksums_ok(quoted), "the quoted checksum follows"
    assert stage.count("icmp_translated") == 1


def test_an_icmp_error_about_no_connection_of_ours_is_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    quoted = udp_packet(connection.vip, connection.client)
    assert stage.packet(icmp_error("198.51.100.1", ADDRESS[0], quoted)) is None
    assert stage.count("icmp_unknown_flow") == 1, "of datagrams, of which this bridge has none"
    quoted = quoted[:9] + b"\x2f" + quoted[10:]
    assert stage.packet(icmp_error("198.51.100.1", ADDRESS[0], quoted)) is None
    assert stage.count("bad_icmp") == 1


def test_an_icmp_error_about_an_unknown_flow_is_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    quoted = tcp_packet(connection.vip, connection.client, flags="A")
    assert stage.packet(icmp_error("198.51.100.1", ADDRESS[0], quoted)) is None
    assert stage.count("icmp_unknown_flow") == 1
