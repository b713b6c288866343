"""What operators see of UDP at the bridge, and do to it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from common.adapters.control.server import Command, CommandError
from common.program.control.rendering import plain
from packetbridge.program.control import backends, flows, tables
from tests.unit.bridge_stage import ADDRESS, SERVER
from tests.unit.scapy_oracle import udp_packet
from tests.unit.test_bridge_datagrams import CLIENT, Udp
from tests.unit.test_control_commands import do

NAME = "203.0.113.20:80"


@pytest.fixture
def stage() -> Udp:
    stage = Udp()
    stage.now = time.monotonic()  # as the commands take it
    return stage


@pytest.fixture
def commands(stage: Udp) -> dict[str, Command]:
    return {**flows.commands(stage.core), **backends.commands(stage.core)}


def test_mappings_are_flows_of_udp(stage: Udp, commands: dict[str, Command]) -> None:
    stage.up()
    stage.up(client=("198.51.100.8", 53))
    rows = do(commands, "flows")
    assert len(rows) == 2
    assert do(commands, "flows", protocol="tcp") == []
    same = do(commands, "flows", protocol="udp", state="mapped", backend=NAME)
    assert [row["id"] for row in same] == [row["id"] for row in rows]  # older by now
    (one,) = do(commands, "flows", client="198.51.100.7")
    expected: dict[str, Any] = {
        "client": "198.51.100.7:40000",
        "protocol": "udp",
        "vip": "192.0.2.10:80",
        "backend": NAME,
        "server": "203.0.113.30:8080",
        "state": "mapped",
        "path": "python",
    }
    assert one.items() >= expected.items()
    assert one["id"] in plain(*tables.flows([one]))
    with pytest.raises(CommandError, match="protocol: 'sctp' is wrong; right would be tcp or udp"):
        do(commands, "flows", protocol="sctp")


@pytest.mark.parametrize("by", ["id", "client"])
def test_a_mapping_is_killed_by_its_id_or_its_client(
    stage: Udp, commands: dict[str, Command], by: str
) -> None:
    stage.up()
    (row,) = do(commands, "flows")
    assert do(commands, "kill", flow=row[by]) == {"killed": [row["id"]]}
    assert do(commands, "flows") == []
    assert stage.count("flows_killed") == 1


def test_backends_are_told_apart_by_protocol(stage: Udp, commands: dict[str, Command]) -> None:
    stage.up()
    pending = {row["name"]: row["pending"] for row in do(commands, "backends")}
    assert pending == {f"{NAME}/5/udp": 1, f"{NAME}/6/udp": 0}
    said = do(commands, "drain", backend=f"{NAME}/5/udp")
    assert said == f"{NAME}/5/udp: takes no new connections; 1 go on"
    assert [row["state"] for row in do(commands, "backends")] == ["draining", "up"]


def test_a_servers_packet_is_known_for_its_clients(stage: Udp) -> None:
    """Who traces a client wants to see those as well."""
    known = flows.Flows(stage.core)
    sees = stage.seen()
    other = stage.seen(tos=6 << 2)
    assert other != sees
    key = udp_packet(SERVER, other)[12:24]
    client = udp_packet(CLIENT, ("192.0.2.11", ADDRESS[1]))[12:24]
    assert known.other_side(key) == client
    assert known.other_side(udp_packet(other, SERVER)[12:24]) == client
    assert known.other_side(udp_packet(SERVER, ("198.51.100.9", 1))[12:24]) is None
