"""Connections that there are while another configuration comes into force."""

from __future__ import annotations

from typing import Any

from balancer.core import config
from balancer.core.service import Paths
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, DSCP, REQUEST, VIP, Client, Stage
from tests.unit.scapy_oracle import fields

NEW = "203.0.113.99"
ELSEWHERE = "192.0.2.77"


def reload(stage: Stage, *bridges: str, vip: str = VIP[0], name: str = "p", **pool: Any) -> None:
    """One pool of those, and a service at ``vip``."""
    backends = tuple(config.Backend(f"n{n}", bridge) for n, bridge in enumerate(bridges))
    chosen = config.Pool(name, backends, table_size=251, **pool)
    service = config.Service("s", vip, VIP[1], DSCP, name)
    whole = config.Config((service,), pools=(chosen,))
    done: list[bool] = []
    paths = Paths(dict.fromkeys(bridges, 1400), {vip: 1500})
    stage.core.reconfigure(whole, paths, stage.now, lambda error: done.append(not error))
    stage.at(stage.now - 5000.0 + 0.1)
    assert done == [True]


def test_what_is_given_back_may_go_to_a_backend_that_is_new() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    client = Client(stage).connect()
    assert client.send(REQUEST, flags="PA") is not None
    reload(stage, NEW)
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    assert stage.reply()["dst"] == NEW


def test_likewise_where_its_service_is_configured_no_more() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    client = Client(stage).connect()
    assert client.send(REQUEST, flags="PA") is not None
    reload(stage, NEW, vip=ELSEWHERE)
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    assert stage.reply()["dst"] == NEW


def test_who_waits_is_given_one_of_the_backends_that_there_are_now() -> None:
    stage = Stage(bridges=BRIDGES[:1])
    clients = [Client(stage, ("198.51.100.7", port)).connect() for port in (1, 2)]
    reload(stage, NEW, vip=ELSEWHERE)
    for client in clients:
        verdict = client.send(REQUEST, flags="PA")
        assert verdict is not None
        assert fields(verdict)["dst"] == NEW
    (member,) = stage.core.pools["p"].members
    assert member.pending == 2


def test_a_pool_that_was_changed_and_then_removed_goes_on_as_it_was_last() -> None:
    stage = Stage(bridges=BRIDGES[:1], pool={"policy": "least-pending"})
    first, second = (Client(stage, ("198.51.100.7", port)).connect() for port in (1, 2))
    assert first.send(REQUEST, flags="PA") is not None, "it has chosen before"
    reload(stage, NEW, vip=ELSEWHERE, policy="least-pending")
    reload(stage, NEW, vip=ELSEWHERE, name="another")
    verdict = second.send(REQUEST, flags="PA")
    assert verdict is not None
    assert fields(verdict)["dst"] == NEW
