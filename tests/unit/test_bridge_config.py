"""The bridge's configuration file, its defaults, and the flags that override it."""

from pathlib import Path

import pytest

from common.core import settings
from common.core.settings import SettingsError
from packetbridge.core import config
from packetbridge.core.checking import Check
from packetbridge.core.config import Backend, Balancer, Config

BALANCER = "[[balancers]]\ndscp = 1\nvip = '10.0.0.1'\n"
BACKEND = "[[backends]]\naddress = '10.0.0.11'\nport = 80\nserver = '10.0.0.21:8080'\n"


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        config.parse(text, "p.toml")
    return caught.value.problems


def test_the_default_is_the_two_box_lab() -> None:
    default = config.default()
    assert default.balancers == (Balancer(1, "192.168.33.10"),)
    assert default.backends == (Backend("192.168.33.20", 80, "192.168.33.30", 80),)
    assert (default.queue, default.mark) == (3320, 0x4C330000)


def test_every_key_of_a_backend() -> None:
    keys = "dscp = [1]\nsource = 'bridge'\nports = '5000-5999'\nhold_handshake = 'off'\n"
    (backend,) = config.parse(BALANCER + BACKEND + keys, "p.toml").backends
    assert backend == Backend(
        "10.0.0.11", 80, "10.0.0.21", 8080, (1,), "bridge", (5000, 5999), "off"
    )


def test_udp_has_no_handoff() -> None:
    udp = BACKEND + "protocol = 'udp'\n"
    found = config.parse(BALANCER + BACKEND + udp, "p.toml")
    assert [(b.protocol, b.handoff) for b in found.backends] == [("tcp", True), ("udp", False)]
    (uninspected,) = config.parse(BALANCER + BACKEND + "handoff = false\n", "p.toml").backends
    assert not uninspected.handoff
    (problem,) = problems(BALANCER + udp + "handoff = true\n")
    assert "handoff: is wrong with protocol 'udp'; right would be false" in problem


def test_the_example_file_is_the_default_and_shows_the_defaults() -> None:
    example = Path(__file__).parents[2] / "provisioning" / "packetbridge.toml"
    text = example.read_text(encoding="utf-8")
    assert config.parse(text, str(example)) == config.default()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    values = [
        line
        for line in lines
        if line.startswith("[")
        or (" = " in line.split("#")[0] and line.split()[0] not in ("interface", "listen", "group"))
    ]
    at = values.index("[backends.check]")
    until = values.index("[limits]")
    check = settings.read(Check, "\n".join(values[at + 1 : until]), str(example))
    assert check == Check()
    del values[at:until]
    assert config.parse("\n".join(values), str(example)) == config.default()


def test_every_key_of_a_check() -> None:
    keys = """[backends.check]
kind = "http"
path = "/health?deep"
host = "www"
status = ["200", "301-302"]
body = "fine"
interval = 5
timeout = 0.5
jitter = 0
rise = 1
fall = 9
"""
    (backend,) = config.parse(BALANCER + BACKEND + "on_down = 'reset'\n" + keys, "p.toml").backends
    assert backend.on_down == "reset"
    assert backend.check == Check(
        "http", "/health?deep", "www", ((200, 200), (301, 302)), "fine", 5.0, 0.5, 0.0, 1, 9
    )


UDP = BACKEND + 'protocol = "udp"\n'


def test_a_check_by_datagrams() -> None:
    keys = """[backends.check]
kind = "udp"
send = "hex:12 34 0100"
expect = "hex: 1234"
match = '\\x81\\x80'
"""
    (backend,) = config.parse(BALANCER + UDP + keys, "p.toml").backends
    check = backend.check
    assert check is not None
    assert (check.send, check.expect, check.match) == (b"\x12\x34\1\0", b"\x12\x34", r"\x81\x80")
    (backend,) = config.parse(BALANCER + UDP + keys.replace("hex:12 34 0100", "PING"), "p").backends
    assert backend.check is not None
    assert backend.check.send == b"PING"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            UDP + "[backends.check]\nkind = 'udp'",
            "check.send: is missing; right would be a datagram",
        ),
        (
            UDP + "[backends.check]\nkind = 'udp'\nsend = 'hex:1'",
            "check.send: 'hex:1' is wrong; right would be a text, or 'hex:' and hexadecimal digits",
        ),
        (
            UDP + "[backends.check]\nkind = 'udp'\nsend = 'x'\nmatch = '('",
            "check.match: '(' is wrong; right would be a regular expression for bytes",
        ),
        (
            UDP + "[backends.check]\nsend = 'x'",
            "check.send: is for kind 'udp', not 'tcp'; right would be kind = 'udp', or no send",
        ),
        (
            BACKEND + "[backends.check]\nkind = 'udp'\nsend = 'x'",
            "backends[0].check: is of kind 'udp'; right would be one of kind 'tcp' or 'http'",
        ),
    ],
)
def test_a_wrong_check_by_datagrams(text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        config.parse(BALANCER + text, "p.toml")
    assert problem in str(error.value)


def test_a_wrong_datagram_is_told_once() -> None:
    (problem,) = problems(BALANCER + UDP + "[backends.check]\nkind = 'udp'\nsend = 'hex:1'")
    assert "check.send: 'hex:1' is wrong" in problem


@pytest.mark.parametrize("key", ["hold_handshake = 'off'", "connect = 2.0", "on_down = 'reset'"])
def test_what_is_for_connections_says_nothing_of_datagrams(key: str) -> None:
    config.parse(BALANCER + BACKEND + key, "p.toml")
    (problem,) = problems(BALANCER + UDP + key)
    name = key.split(maxsplit=1)[0]
    assert f"{name}: is for connections, not for protocol 'udp'; right would be none" in problem


def test_it_answers_where_balancers_look_unless_told_otherwise() -> None:
    other = BACKEND.replace("10.0.0.11", "10.0.0.12")
    text = BALANCER + BACKEND + BACKEND.replace("port = 80", "port = 81") + other
    both = (("10.0.0.11", 9320), ("10.0.0.12", 9320))
    assert config.parse(text, "p.toml").endpoints == both
    assert config.parse(text + "[http]\nlisten = []", "p.toml").endpoints == ()
    listen = config.parse(text + "[http]\nlisten = ['10.0.0.13:1']", "p.toml").endpoints
    assert listen == (("10.0.0.13", 1),)


def test_a_backend_without_a_list_takes_every_balancers_connections() -> None:
    text = BALANCER + "[[balancers]]\ndscp = 2\nvip = '10.0.0.2'\n" + BACKEND
    found = config.parse(text, "p.toml")
    assert found.dscps(found.backends[0]) == (1, 2)
    assert [found.vip(dscp) for dscp in (1, 2)] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mark = 1\n" + BALANCER + BACKEND, "mark: 1 is wrong; right would be a 32-bit mark"),
        ("mark = 0x4c330001\n" + BALANCER + BACKEND, "mark: 1278410753 is wrong"),
        ("mark = 0x14c330000\n" + BALANCER + BACKEND, "mark: 5573378048 is wrong"),
        ("backends = 1\n" + BALANCER, "backends: 1 is wrong"),
        ("backends = []\n" + BALANCER, "backends: is empty"),
        ("balancers = []\n" + BACKEND, "balancers: is empty"),
        (BALANCER + BACKEND + "dscp = [2]", "backends[0].dscp: no balancer has the DSCP 2"),
        (BALANCER + BACKEND + "dscp = [0]", "backends[0].dscp: [0] is wrong"),
        (BALANCER + BACKEND + "dscp = [1, 1]", "backends[0].dscp: [1, 1] repeats a DSCP"),
        (BALANCER + BACKEND + "dscp = 1", "backends[0].dscp: 1 is wrong; right would be a list"),
        (BALANCER + BACKEND + "ports = '9-8'", "backends[0].ports: '9-8' is wrong"),
        (
            BALANCER + BACKEND + "source = 'bridge'\nports = '80-90'",
            "backends[0].ports: 80-90 holds the service port 80",
        ),
        (
            BALANCER + BACKEND + "[backends.check]\nstatus = ['20']",
            "backends[0].check.status: ['20'] is wrong; right would be a list of statuses",
        ),
        (BALANCER + BACKEND + "[backends.check]\nstatus = []", "backends[0].check.status: [] is"),
        (BALANCER + BACKEND + "[backends.check]\nstatus = ['300-200']", "backends[0].check.status"),
        (
            BALANCER + BACKEND + "[backends.check]\npath = 'x'",
            "backends[0].check.path: 'x' is wrong",
        ),
        (BALANCER + BACKEND + "[backends.check]\npath = '/a b'", "backends[0].check.path: '/a b'"),
        (BALANCER + BACKEND + "connect = 0", "backends[0].connect: 0 is wrong"),
        (BALANCER + BACKEND + "on_down = 'drop'", "backends[0].on_down: 'drop' is wrong"),
        (BALANCER + BACKEND + BACKEND, "backends[1]: 10.0.0.11:80 with DSCP 1 is backends[0]"),
        (BALANCER + BALANCER + BACKEND, "balancers[1].dscp: 1 names vip 10.0.0.1 already"),
        (
            BALANCER + BALANCER.replace("dscp = 1", "dscp = 2") + BACKEND,
            "balancers[1].vip: 10.0.0.1 has the DSCP 1 already",
        ),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(f"p.toml: {problem}")


def test_balancers_can_have_backends_of_their_own_at_one_address() -> None:
    second = "[[balancers]]\ndscp = 2\nvip = '10.0.0.2'\n"
    text = BALANCER + second + BACKEND + "dscp = [1]\n" + BACKEND + "dscp = [2]\n"
    assert len(config.parse(text, "p.toml").backends) == 2


def test_flags_override_the_only_backend_and_replace_the_balancers() -> None:
    changed = config.override(
        config.default(),
        interface="eth1",
        address="10.0.0.11",
        port=81,
        backend="10.0.0.21:8080",
        balancer=("3:10.0.0.1", "4:10.0.0.2"),
        source="bridge",
        datapath="ebpf",
        log_level="warning",
    )
    assert changed == Config(
        (Balancer(3, "10.0.0.1"), Balancer(4, "10.0.0.2")),
        (Backend("10.0.0.11", 81, "10.0.0.21", 8080, source="bridge"),),
        "eth1",
        "ebpf",
        "warning",
    )


def test_flags_for_a_backend_need_a_single_one() -> None:
    two = config.parse(BALANCER + BACKEND + BACKEND.replace("port = 80", "port = 81"), "p.toml")
    with pytest.raises(SettingsError, match="the configuration has 2 backends"):
        config.override(two, source="bridge")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"backend": "10.0.0.21"}, "--backend: '10.0.0.21' is wrong; right would be ADDRESS:PORT"),
        ({"balancer": ("10.0.0.1",)}, "--balancer: '10.0.0.1' is wrong; right would be DSCP:VIP"),
        ({"balancer": ("99:10.0.0.1",)}, "--balancer: '99:10.0.0.1' is wrong"),
        ({"address": "x"}, "--address: 'x' is wrong"),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        config.override(config.default(), **flags)  # type: ignore[arg-type]
    assert str(caught.value).startswith(problem)
