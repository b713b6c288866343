"""What both programs tell their agents, and make of what they hear; with the real control server
and real agents where it is about both sides."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import packetbridge.program.serve  # noqa: F401  with these, every name is known
from balancer.core import config as balancer_config
from balancer.core.choice.pool import Pool
from balancer.core.config import Config
from balancer.core.health import PoolHealth
from balancer.core.times import Times
from balancer.program.agent import BalancerAgent
from common.adapters.control.server import ControlServer
from common.adapters.watch import Watch
from common.core.agent_settings import BridgeCheck, Member
from common.core.health import Rhythm
from common.core.histogram import Histogram
from common.core.program_metrics import Build
from common.program.agent_side import Program, agent, commands
from packetbridge.core import config as bridge_config
from packetbridge.program.agent import BridgeAgent
from tests.agent.stage import free_port, response, saying, server, until

BUILD = Build("1.2.3", "3.11.2", "nfqueue")

BALANCER = """
http = { listen = ["127.0.0.1:9310"] }
[[services]]
name = "web"
vip = "192.0.2.10"
port = 80
dscp = 1
pool = "plain"
[[services]]
name = "secure"
vip = "192.0.2.10"
port = 443
dscp = 1
pool = "plain"
[[services]]
vip = "192.0.2.11"
port = 80
dscp = 2
backends = [{ bridge = "203.0.113.9" }]
[[routes]]
path_prefix = "/big/"
service = "web"
pool = "big"
[[pools]]
name = "plain"
check = { interval = 1.0, rise = 1, fall = 2 }
backends = [{ name = "a", bridge = "203.0.113.1" }, { name = "b", bridge = "203.0.113.2" }]
[[pools]]
name = "big"
check = { interval = 1.0, fall = 5 }
backends = [{ name = "a", bridge = "203.0.113.1" }]
[[pools]]
name = "unused"
check = {}
backends = [{ bridge = "203.0.113.7" }]
[[pools]]
name = "fast"
check = { interval = 0.5 }
backends = [{ bridge = "203.0.113.1" }]
[[routes]]
path_prefix = "/fast/"
service = "web"
pool = "fast"
"""


class Balancing:
    """A balancer without packets."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pools = {name: Pool(pool) for name, pool in config.all_pools.items()}
        self.health = PoolHealth(self._mark)
        self.times = Times()
        self.numbers: Counter[str] = Counter()
        self.draining = False
        self.program = BalancerAgent(
            lambda: self.config,
            lambda: self.pools,
            self.health,
            self.times,
            lambda: self.numbers,
            BUILD,
            0.0,
            lambda: self.draining,
        )

    def _mark(self, pool: str, backend: str, up: bool, reason: str, now: float) -> None:
        member = self.pools[pool].find(backend)
        assert member is not None
        if up:
            self.pools[pool].mark_up(member, now)
        else:
            self.pools[pool].mark_down(member, reason, now)

    def shown(self, now: float = 0.0) -> dict[str, Any]:
        return whole(self.program, now)


def whole(program: Program, now: float = 0.0) -> dict[str, Any]:
    """What the agent would answer at /health."""
    lists: dict[str, list[Any]] = {}
    items = program.health(now)
    while True:
        try:
            name, item = next(items)
        except StopIteration as done:
            return {**done.value, **lists}
        lists.setdefault(name, []).append(item)


@pytest.fixture
def balancing() -> Balancing:
    return Balancing(balancer_config.parse(BALANCER, "test.toml"))


# --- the balancer's settings ---


def test_each_bridge_is_asked_once_for_all_pools_that_ask_alike(balancing: Balancing) -> None:
    second, plain = Rhythm(1.0, 0.1), ((80, 1, "tcp"), (443, 1, "tcp"))
    assert balancing.program.settings().bridges == (
        BridgeCheck(
            "203.0.113.1",
            9320,
            second,
            1.0,
            (
                Member(("plain", "a"), "203.0.113.1", plain),
                Member(("big", "a"), "203.0.113.1", ((80, 1, "tcp"),)),
            ),
        ),
        BridgeCheck(
            "203.0.113.2", 9320, second, 1.0, (Member(("plain", "b"), "203.0.113.2", plain),)
        ),
        BridgeCheck(
            "203.0.113.1",
            9320,
            Rhythm(0.5, 0.1),
            1.0,
            (Member(("fast", "203.0.113.1"), "203.0.113.1", ((80, 1, "tcp"),)),),
        ),
    )


def test_a_pools_members_are_told_what_of_them_is_not_read() -> None:
    services = (
        "[[services]]\nvip = '192.0.2.1'\nport = 22\ndscp = 1\npool = 'p'\ninspect = 'none'\n",
        "[[services]]\nvip = '192.0.2.1'\nport = 22\ndscp = 1\npool = 'p'\nprotocol = 'udp'\n",
        "[[services]]\nvip = '192.0.2.1'\nport = 80\ndscp = 1\npool = 'p'\n",
    )
    pool = "[[pools]]\nname = 'p'\nbackends = [{ bridge = '203.0.113.1' }]\n[pools.check]\n"
    program = Balancing(balancer_config.parse("".join(services) + pool, "test.toml")).program
    ((member,),) = (bridge.members for bridge in program.settings().bridges)
    assert member.unread == ((22, 1, "tcp"), (22, 1, "udp"))
    assert member.entries == (*member.unread, (80, 1, "tcp"))


def test_where_to_listen_and_which_queues_are_told(balancing: Balancing) -> None:
    settings = balancing.program.settings()
    assert settings.listen == (("127.0.0.1", 9310),)
    assert settings.queues == ((3310, "packets"), (3311, "syns"), (3312, "datagrams"))


def test_settings_are_new_when_a_backend_is(balancing: Balancing) -> None:
    before = balancing.program.settings()
    assert balancing.program.checked([], 1.0) == before.generation
    backend = balancer_config.Backend("c", "203.0.113.3")
    balancing.pools["plain"].add(backend, 1.0)
    assert balancing.program.checked([], 2.0) != before.generation
    members = [m.target for check in balancing.program.settings().bridges for m in check.members]
    assert ("plain", "c") in members
    balancing.program.checked([(("plain", "c"), False, "refused")], 3.0)
    assert not balancing.pools["plain"].find("c").up  # type: ignore[union-attr]


# --- the balancer's judgement ---


def test_results_take_backends_out_and_bring_them_back(balancing: Balancing) -> None:
    program, member = balancing.program, balancing.pools["plain"].find("a")
    assert member is not None
    program.checked([(("plain", "a"), True, "")], 1.0)
    program.checked([(("plain", "a"), False, "refused")], 2.0)
    assert member.up
    balancing.health.suspected("plain", "a", "handoff_unanswered", bytes(4), 2.5)
    assert (member.up, member.reason) == (False, "handoff unanswered")
    assert balancing.pools["big"].find("a").up  # type: ignore[union-attr]
    program.checked([(("plain", "a"), True, "")], 3.0)
    assert member.up
    assert balancing.health.failures == {
        ("plain", "a", "check"): 1,
        ("plain", "a", "handoff_unanswered"): 1,
    }


def test_results_about_what_is_gone_are_ignored(balancing: Balancing) -> None:
    gone = [(("nobody", "a"), False, "x"), (("plain", "z"), False, "x")]
    balancing.program.checked(gone, 1.0)
    assert not balancing.health.failures


def test_a_pool_that_is_not_checked_any_more_is_taken_for_well(balancing: Balancing) -> None:
    member = balancing.pools["plain"].find("a")
    assert member is not None
    balancing.program.checked([(("plain", "a"), False, "refused")], 1.0)
    assert not member.up
    pools = tuple(replace(pool, check=None) for pool in balancing.config.pools)
    balancing.config = replace(balancing.config, pools=pools)
    for name, configured in balancing.config.all_pools.items():
        successor = balancing.pools[name].reconfigured(configured, 2.0)
        successor.take_over(2.0)
        balancing.pools[name] = successor
    balancing.program.checked([], 2.0)
    assert balancing.pools["plain"].find("a").up  # type: ignore[union-attr]


def test_health_is_down_only_where_nobody_can_be_served(balancing: Balancing) -> None:
    program = balancing.program

    def said() -> dict[str, str]:
        shown = balancing.shown()
        return {"": shown["status"]} | {pool["name"]: pool["status"] for pool in shown["pools"]}

    assert set(said().values()) == {"ok"}
    program.checked([(("plain", "a"), False, "refused")], 5.0)
    assert (said()[""], said()["plain"]) == ("degraded", "degraded")
    program.checked([(("plain", "b"), False, "refused")], 5.0)
    assert (said()[""], said()["plain"]) == ("degraded", "down")
    backend = balancing.shown(7.0)["pools"][0]["backends"][0]
    assert backend == {
        "name": "a",
        "bridge": "203.0.113.1",
        "up": False,
        "reason": "refused",
        "checked": True,
        "seconds": 2.0,
        "draining": False,
        "weight": 1,
        "flows": 0,
    }
    for name, pool in balancing.pools.items():
        for member in pool.members:
            balancing._mark(name, member.name, False, "x", 6.0)
    assert said()[""] == "down"


def test_a_balancer_that_is_about_to_stop_is_down(balancing: Balancing) -> None:
    balancing.draining = True
    assert balancing.shown()["status"] == "down"


# --- the bridge ---

BRIDGE = """
[[balancers]]
dscp = 1
vip = "192.0.2.10"
[[balancers]]
dscp = 2
vip = "192.0.2.11"
[[backends]]
address = "203.0.113.1"
port = 80
server = "203.0.113.30:8080"
check = { kind = "http", path = "/ok", host = "h", status = ["200"], body = "fine", rise = 1 }
[[backends]]
address = "203.0.113.1"
port = 443
dscp = [2]
server = "203.0.113.31:443"
"""


@dataclass
class Figures:
    flows: int = 0
    handoffs: int = 0
    opened: int = 0
    refused: int = 0
    silent: int = 0
    resets: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    connect: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)


@dataclass
class Way:
    port: int
    dscp: int
    server_name: str
    address: bytes = IPv4Address("203.0.113.1").packed
    protocol: str = "tcp"
    up: bool = True
    reason: str = ""
    draining: bool = False
    figures: Figures = field(default_factory=Figures)

    @property
    def name(self) -> str:
        return f"{IPv4Address(self.address)}:{self.port}/{self.dscp}"


class Bridging:
    """A bridge without packets."""

    def __init__(self, config: bridge_config.Config, ways: list[Way] | None = None) -> None:
        self.config = config
        self.ways = ways or [
            Way(80, 1, "203.0.113.30:8080"),
            Way(80, 2, "203.0.113.30:8080"),
            Way(443, 2, "203.0.113.31:443"),
        ]
        self.numbers: Counter[str] = Counter()
        self.program = BridgeAgent(
            lambda: self.config, lambda: self.ways, self._mark, lambda: self.numbers, BUILD, 0.0
        )

    def _mark(self, name: str, up: bool, reason: str, now: float) -> None:
        (way,) = [way for way in self.ways if way.name == name]
        way.up, way.reason = up, reason

    @property
    def up(self) -> list[bool]:
        return [way.up for way in self.ways]


TARGET = ("tcp", "203.0.113.1", 80, (), "203.0.113.30", 8080)


@pytest.fixture
def bridging() -> Bridging:
    return Bridging(bridge_config.parse(BRIDGE, "test.toml"))


def test_a_bridge_has_its_servers_checked_as_configured(bridging: Bridging) -> None:
    settings = bridging.program.settings()
    (check,) = settings.servers
    assert (check.target, check.kind, check.address, check.port) == (
        TARGET,
        "http",
        "203.0.113.30",
        8080,
    )
    assert (check.path, check.host, check.status, check.body) == ("/ok", "h", ((200, 200),), "fine")
    assert settings.listen == (("203.0.113.1", 9320),)


def test_a_bridges_servers_are_judged_and_told(bridging: Bridging) -> None:
    bridging.program.checked([(TARGET, False, "status 503")], 1.0)
    assert bridging.up == [False, False, True]
    bridging.ways[0].figures.refused = 3
    bridging.ways[2].draining = True
    shown = whole(bridging.program)
    assert shown["status"] == "ok"  # it is the bridge's own
    assert [(b["port"], b["dscps"], b["up"], b["reason"]) for b in shown["backends"]] == [
        (80, (1,), False, "status 503"),
        (80, (2,), False, "status 503"),
        (443, (2,), False, "draining"),
    ]
    assert shown["backends"][0]["refused"] == 3
    bridging.program.checked([(TARGET, True, "")], 2.0)
    assert bridging.up == [True, True, True]


def test_syns_that_no_server_answers_say_nothing_of_it(bridging: Bridging) -> None:
    """They may be anybody's; what begins with a handoff is of a client that has proven itself."""
    first, second = bridging.config.backends
    bridging.config = replace(bridging.config, backends=(first, replace(second, handoff=False)))
    bridging.program.checked([], 1.0)
    for way in bridging.ways:
        way.figures.silent = 5
    shown = whole(bridging.program)["backends"]
    assert [each["silent"] for each in shown] == [5, 5, 0]


def test_a_way_in_that_was_made_anew_is_as_its_server_is(bridging: Bridging) -> None:
    bridging.program.checked([(TARGET, False, "x")], 1.0)
    bridging.ways[0] = Way(80, 1, "203.0.113.30:8080")
    bridging.config = replace(bridging.config)
    bridging.program.checked([], 2.0)
    assert bridging.up == [False, False, True]


def test_a_server_that_is_not_checked_any_more_is_taken_for_well(bridging: Bridging) -> None:
    bridging.program.checked([(TARGET, False, "x")], 1.0)
    first, second = bridging.config.backends
    backends = (replace(first, check=None), second)
    bridging.config = replace(bridging.config, backends=backends)
    bridging.program.checked([], 2.0)
    assert bridging.up == [True, True, True]
    assert not bridging.program.settings().servers


def test_another_server_is_not_blamed_for_the_one_before(bridging: Bridging) -> None:
    bridging.program.checked([(TARGET, False, "x")], 1.0)
    first, second = bridging.config.backends
    backends = (replace(first, server_port=9090), second)
    bridging.config = replace(bridging.config, backends=backends)
    bridging.program.checked([(TARGET, False, "late")], 2.0)
    assert bridging.up == [True, True, True]


# --- both sides ---


class Turning:
    """The turns of a packet loop that has no packets, in a thread."""

    def __init__(self, program: Program, records: Any) -> None:
        self.watch = Watch()
        self.failures: list[str] = []
        table = commands(program, records, lambda: 0)
        self.server = ControlServer(self.watch, table, Counter(), self.failures.append)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._turn)

    def _turn(self) -> None:
        with agent(self.server):
            while not self._over.is_set():
                wait = min(self.watch.due - time.monotonic(), 0.05)
                self.watch.heed(self.watch.ready(wait))
                if (now := time.monotonic()) >= self.watch.due:
                    self.watch.step(now)

    @contextmanager
    def turning(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(10)
            assert not self.failures


class NoRecords:
    wanted = False

    def __len__(self) -> int:
        return 0

    def take(self, _most: int) -> list[dict[str, Any]]:
        return []


def get(port: int, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return None
    finally:
        connection.close()


def test_a_balancer_learns_from_a_bridge_that_a_server_is_down_and_up_again() -> None:
    """Two agents: the balancer's asks the bridge's, which asks the server."""
    well = [True]

    def serve(connected: Any) -> None:
        saying(response(status="200 OK" if well[0] else "500 Out of order"))(connected)

    health, own = free_port(), free_port()
    with server(serve) as port:
        check = '{ kind = "http", interval = 0.1, rise = 2, fall = 2, status = ["200"] }'
        bridge = Bridging(
            bridge_config.parse(
                f'balancers = [{{ dscp = 1, vip = "192.0.2.10" }}]\n'
                f'http = {{ listen = ["127.0.0.1:{health}"] }}\n'
                f'[[backends]]\naddress = "127.0.0.1"\nport = 80\n'
                f'server = "127.0.0.1:{port}"\ncheck = {check}\n',
                "bridge.toml",
            ),
            [Way(80, 1, f"127.0.0.1:{port}", IPv4Address("127.0.0.1").packed)],
        )
        balancer = Balancing(
            balancer_config.parse(
                f'http = {{ listen = ["127.0.0.1:{own}"] }}\n'
                'services = [{ vip = "192.0.2.10", port = 80, dscp = 1, pool = "p" }]\n'
                '[[pools]]\nname = "p"\nbackends = [{ name = "b", bridge = "127.0.0.1" }]\n'
                f"check = {{ port = {health}, interval = 0.1, rise = 2, fall = 2 }}\n",
                "balancer.toml",
            )
        )
        member = balancer.pools["p"].find("b")
        assert member is not None
        both = Turning(bridge.program, NoRecords()), Turning(balancer.program, NoRecords())
        with both[0].turning():
            until(lambda: get(health, "/health"))
            with both[1].turning():
                until(lambda: (get(own, "/health") or (0,))[0] == 200)
                well[0] = False
                until(lambda: not member.up)
                assert member.reason == f"server 127.0.0.1:{port}: status 500"
                until(lambda: (get(own, "/health") or (0,))[0] == 503)
                well[0] = True
                until(lambda: member.up)
                until(lambda: (get(own, "/health") or (0,))[0] == 200)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_balancers_metrics_are_to_be_had_by_http() -> None:
    port = free_port()
    text = BALANCER.replace("127.0.0.1:9310", f"127.0.0.1:{port}")
    balancer = Balancing(balancer_config.parse(text, "balancer.toml"))
    balancer.numbers.update(
        {"flows": 5, "packets": 100, "steered": 90, "fast_packets": 1000, "fast_bytes": 52000,
         "bad_ack": 3, "kernel_queue_lost": 2, "redispatched": 4, "flows_expired": 1}
    )  # fmt: skip
    balancer.times.handshake.observe(0.02)
    pool = balancer.pools["plain"]
    member = pool.members[0]
    pool.opened(member, b"\x01\x02\x03\x04", 1.0)
    with Turning(balancer.program, NoRecords()).turning():
        until(lambda: get(port, "/metrics"))
        found = get(port, "/metrics")
    assert found is not None and found[0] == 200
    said = samples(found[1].decode())
    p = "l3dsr_balancer_"
    assert said[f"{p}build_info", "nfqueue", "3.11.2", "1.2.3"] == 1
    assert said[f"{p}flows",] == 5
    assert said[f"{p}packets_received_total",] == 100
    assert said[f"{p}forwarded_packets_total", "to_bridge", "python"] == 90
    assert said[f"{p}forwarded_packets_total", "to_bridge", "kernel"] == 1000
    assert said[f"{p}forwarded_bytes_total", "to_bridge", "kernel"] == 52000
    assert said[f"{p}packets_dropped_total", "bad_ack"] == 3
    assert said[f"{p}packets_dropped_total", "no_service"] == 0
    assert said[f"{p}packets_served_total", "steered"] == 90
    assert said[f"{p}queue_lost_total", "packets"] == 2
    assert said[f"{p}redispatches_total",] == 4
    assert said[f"{p}events_total", "flows_expired"] == 1
    assert said[f"{p}handshake_seconds_bucket", "0.025"] == 1
    assert said[f"{p}handshake_seconds_count",] == 1
    assert said[f"{p}backend_up", "a", "plain"] == 1
    assert said[f"{p}backend_flows", "a", "plain"] == 1
    assert said[f"{p}backend_handoffs_total", "a", "plain"] == 1
    assert said[f"{p}backend_weight", "b", "plain"] == 1
    assert said["process_resident_memory_bytes",] > 10e6
    assert 0 < time.time() - said["process_start_time_seconds",] < 86400
    assert not any(name.startswith("l3dsr_packetbridge") for name, *_ in said)
