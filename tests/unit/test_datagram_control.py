"""What an operator sees of UDP clients, and does with them: `flows`, `kill`, `explain`, `trace`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.core.datagrams.fast_path import NoFastMappings
from balancer.core.datagrams.mapping import Mapping
from balancer.core.fast_path import NoFastPath
from balancer.program.control import explain, flows, tables
from common.adapters.control.server import CommandError
from common.program.control.rendering import plain
from common.program.control.trace_text import Traced
from common.program.control.tracing import Trace
from tests.unit.datagram_stage import BRIDGES, CLIENT, VIP, Stage, client
from tests.unit.scapy_oracle import icmp_error, udp_packet
from tests.unit.test_control_commands import do
from tests.unit.test_tracing import Loop

AT = f"{VIP[0]}:{VIP[1]}"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(pool={"policy": "round-robin"})
    monkeypatch.setattr("time.monotonic", lambda: stage.now)
    return stage


def test_flows_shows_mappings(stage: Stage) -> None:
    stage.send(payload=b"12")
    stage.at(3)
    bridge = stage.send((CLIENT[0], 9), payload=b"")
    stage.send(client(1))
    stage.at(5)
    known = flows.commands(stage.core)
    row, other = do(known, "flows")
    backend = f"b{BRIDGES.index(str(bridge))}"
    assert len(row.pop("id")) == 16
    assert row == {
        "client": CLIENT[0], "protocol": "udp", "service": "s", "backend": backend,
        "state": "mapped", "path": "python", "age": 5.0, "idle": 2.0, "datagrams": 2, "bytes": 58,
    }  # fmt: skip
    assert do(known, "flows", backend=other["backend"]) == [other]
    assert do(known, "flows", client=client(1)[0]) == [other]
    assert do(known, "flows", state="handed") == do(known, "flows", protocol="tcp") == []
    assert len(do(known, "flows", protocol="udp", state="mapped", service="s")) == 2
    with pytest.raises(CommandError, match="right would be tcp or udp"):
        do(known, "flows", protocol="sctp")
    assert "udp" in plain(*tables.flows(do(known, "flows")))


@pytest.mark.parametrize("key", ["source", "source-port"])
def test_a_mapping_is_ended_by_its_id_and_by_its_client(key: str) -> None:
    stage = Stage(pool={"key": (key,), "policy": "round-robin"})
    stage.send()
    stage.send(client(1))
    known = flows.commands(stage.core)
    first, second = (row["id"] for row in do(known, "flows"))
    assert do(known, "kill", flow=first) == {"killed": [first]}
    assert do(known, "kill", flow=f"{client(1)[0]}:40000") == {"killed": [second]}
    assert stage.count("mappings_killed") == 2
    assert not stage.table.mappings


@pytest.mark.parametrize("key", ["source", "source-port"])
@pytest.mark.parametrize("policy", ["maglev", "round-robin"])
def test_datagrams_go_where_explain_says(key: str, policy: str) -> None:
    stage = Stage(pool={"key": (key,), "policy": policy})
    ask = explain.commands(stage.core)["explain"].run
    for number in range(100):
        address, port = client(number % 60, 1000 + number // 60 * (key == "source-port"))
        question = {"method": "udp", "url": AT, "source": f"{address}:{port}"}
        told = ask(question)
        assert told["mapped"] is (number >= 60 and key == "source")
        bridge = stage.send((address, port))
        assert told["backend"] == f"b{BRIDGES.index(str(bridge))}"
        again = ask(question)
        assert (again["mapped"], again["backend"]) == (True, told["backend"])
        assert again["order"][0] == again["backend"]
        assert sorted(again["order"]) == ["b0", "b1", "b2"]
        json.dumps(told)
    assert "it has it already" in plain(*tables.explained(ask(question)))


def test_explain_names_what_is_wrong(stage: Stage) -> None:
    ask = explain.commands(stage.core)["explain"].run
    with pytest.raises(CommandError, match=r"there is no UDP service 1\.2\.3\.4:5; right would be"):
        ask({"method": "UDP", "url": "1.2.3.4:5"})
    with pytest.raises(CommandError, match="there is no UDP service 'x'"):
        ask({"method": "UDP", "url": AT, "service": "x"})
    assert ask({"method": "UDP", "url": "", "service": "s"})["service"] == "s"
    flowing = Stage(pool={"key": ("source-port",)})
    with pytest.raises(CommandError, match="each port has a backend of its own"):
        explain.commands(flowing.core)["explain"].run({"method": "udp", "url": AT})


class Kernel(NoFastMappings):
    """Takes every mapping that is not withheld, at once."""

    def __init__(self) -> None:
        self.wanted: Any = None

    def withhold(self, wanted: Any) -> None:
        self.wanted = wanted

    def steer(self, mapping: Mapping) -> None:
        self.renew(mapping)

    def renew(self, mapping: Mapping) -> None:
        mapping.fast = self.wanted is None or not self.wanted(mapping)


def test_a_trace_shows_a_clients_datagrams_and_has_the_kernel_leave_them_to_python() -> None:
    class Fast(NoFastPath):
        mappings = Kernel()

    stage = Stage(fast=Fast())
    stage.send()
    stage.send(client(1))
    mapping, other = stage.table.mappings.values()
    loop, known = Loop(stage), flows.Flows(stage.core)  # type: ignore[arg-type]
    whose = flows.client(CLIENT[0] + ":40000")
    trace = Trace(loop, known, whose)  # type: ignore[arg-type]
    for each in known.those(trace.is_ours):
        if each is not None:
            known.renew(each)
    assert (mapping.fast, other.fast) == (False, True)
    judge = loop.packet
    judge(udp_packet(CLIENT, VIP, b"12345"), stage.now, 0)
    judge(udp_packet(client(1), VIP, b"12345"), stage.now, 0)
    judge(icmp_error("10.0.0.1", VIP[0], udp_packet(VIP, CLIENT, b"")[:28]), stage.now, 0)
    first, second = trace.take(10)
    assert first["reasons"] == ["datagram_steered"]
    assert second["reasons"] == ["icmp_steered"]
    lines = list(Traced().lines(first))
    assert lines[0].endswith(f"in    {CLIENT[0]}:40000 > {AT}  udp 5 bytes")
    assert lines[1].endswith("dscp=5  udp 5 bytes")
    trace.end()
    assert mapping.fast
