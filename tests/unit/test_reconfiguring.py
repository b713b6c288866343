"""Another configuration while connections go on: it holds for new ones, and for those that need
another backend."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from balancer.core import config, operating
from balancer.core.choice.member import Member
from balancer.core.service import Paths
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, DSCP, REQUEST, T0, VIP, Client, Stage
from tests.unit.scapy_oracle import fields

OLD, NEW = BRIDGES[0], "203.0.113.99"


def reconfigured(stage: Stage, *bridges: str, port: int = VIP[1], pool: str = "p") -> None:
    """Have a pool with these bridges in force, and a service at the port."""
    backends = tuple(config.Backend(f"x{bridge}", bridge) for bridge in bridges)
    chosen = config.Pool(pool, backends, table_size=251)
    service = config.Service("s", VIP[0], port, DSCP, pool)
    paths = Paths(dict.fromkeys(bridges, 1500), {VIP[0]: 1500})
    done: list[bool] = []
    whole = config.Config((service,), pools=(chosen,))
    stage.core.reconfigure(whole, paths, stage.now, lambda error: done.append(not error))
    stage.at(stage.now - T0)
    assert done


def handed(stage: Stage, port: int = 40000) -> tuple[Client, str]:
    client = Client(stage, ("198.51.100.7", port)).connect()
    verdict = client.send(REQUEST, flags="PA")
    assert verdict is not None
    return client, fields(verdict)["dst"]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """One with a backend that all that follows do without."""
    yield Stage(bridges=(OLD,))


def test_what_goes_on_stays_where_it_is_and_what_is_new_goes_elsewhere(stage: Stage) -> None:
    client, first = handed(stage)
    reconfigured(stage, NEW)
    assert (first, handed(stage, 40001)[1]) == (OLD, NEW)
    verdict = client.send(b"more", len(REQUEST))
    assert verdict is not None
    assert fields(verdict)["dst"] == OLD
    (departed,) = stage.core.pools["p"].departed
    assert (departed.bridge, departed.pending) == (OLD, 1)


def test_of_two_at_once_the_second_follows_the_first(stage: Stage) -> None:
    """A backend that is new in both is one: what it has in progress is counted once."""
    paths = Paths(dict.fromkeys((OLD, NEW), 1500), {VIP[0]: 1500})
    service = config.Service("s", VIP[0], VIP[1], DSCP, "p")
    pool = config.Pool("p", (config.Backend("new", NEW),), table_size=251)
    whole = config.Config((service,), pools=(pool,))
    seen: list[object] = []
    for _ in range(2):
        found = lambda _: seen.append(stage.core.pools["p"].find("new"))  # noqa: E731
        stage.core.reconfigure(whole, paths, stage.now, found)
    stage.at(0.1)
    assert len(seen) == 2
    assert seen[0] is seen[1]


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_connection_whose_backend_is_gone_gets_a_new_one(stage: Stage, how: str) -> None:
    """One that the configuration of its beginning did not know."""
    client, _ = handed(stage)
    reconfigured(stage, NEW)
    if how == "refused":
        assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    else:
        client.send(REQUEST, flags="PA")
        stage.sent()
        stage.at(1.5)
    packets = [fields(packet) for packet in stage.sent()]
    assert [p["dst"] for p in packets if p["payload"] == REQUEST] == [NEW]
    assert stage.count("redispatched") == 1
    assert not stage.core.pools["p"].departed


def test_a_service_that_is_gone_serves_what_it_has(stage: Stage) -> None:
    client, _ = handed(stage)
    reconfigured(stage, NEW, port=81)
    verdict = client.send(b"more", len(REQUEST))
    assert verdict is not None
    assert fields(verdict)["dst"] == OLD
    assert stage.packet(client.answer(models.REFUSED, rest=REQUEST)) is None
    assert fields(stage.sent()[-1])["dst"] == NEW
    other = Client(stage, ("198.51.100.7", 40001))
    assert other.syn() is None
    assert stage.reply()["flags"] == "RA", "refused at once"
    assert stage.count("no_service") == 1


def test_which_services_have_connections_is_found_little_by_little(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "LOOKED_AT", 2)
    for port in range(40000, 40005):
        handed(stage, port)
    Client(stage, ("198.51.100.7", 40005)).connect()
    told: list[set[tuple[str, int]]] = []
    stage.core.find_busy(told.append)
    stage.core.timers(stage.now, 0.0)
    reconfigured(stage, NEW, port=81)  # after all that was begun before
    assert told == [{VIP}]


def test_what_is_not_configured_any_more_is_not_kept(stage: Stage) -> None:
    """The loop does without the collector of cycles: there must be none."""
    gc.disable()
    try:
        for number in range(3):
            reconfigured(stage, f"203.0.113.{50 + number}", pool=f"p{number}")
        kept = {each.name for each in gc.get_objects() if isinstance(each, Member)}
    finally:
        gc.enable()
    assert {name for name in kept if name.startswith("x203.0.113.5")} == {"x203.0.113.52"}
