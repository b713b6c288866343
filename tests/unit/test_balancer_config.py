"""The balancer's configuration file, its defaults, and the flags that override it."""

from pathlib import Path

import pytest

from balancer.core import config
from balancer.core.config import Backend, Config, Service
from common.core.settings import SettingsError

SERVICE = "[[services]]\nvip = '10.0.0.1'\nport = 80\ndscp = 1\n"
BACKEND = "[[services.backends]]\nbridge = '10.0.0.11'\n"


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        config.parse(text, "b.toml")
    return caught.value.problems


def test_the_default_is_the_two_box_lab() -> None:
    service = config.default().services[0]
    assert (service.vip, service.port, service.dscp) == ("192.168.33.10", 80, 1)
    assert service.backends == (Backend("192.168.33.20", "192.168.33.20", 1),)


def test_names_default_to_addresses() -> None:
    service = config.parse(SERVICE + BACKEND, "b.toml").services[0]
    assert service.name == "10.0.0.1:80"
    assert service.backends[0].name == "10.0.0.11"


def test_the_example_file_shows_the_defaults() -> None:
    """Every commented-out value, put in force, changes nothing."""
    example = Path(__file__).parents[2] / "provisioning" / "balancer.toml"
    text = example.read_text(encoding="utf-8")
    found = config.parse(text, str(example))
    assert [b.name for b in found.pools[0].backends] == ["backend1", "backend2"]
    lines = [_uncommented(line) for line in text.splitlines()]
    lines = [line for line in lines if not line.startswith("interface")]
    assert config.parse("\n".join(lines), str(example)) == found


def _uncommented(line: str) -> str:
    """A default in force; a comment in words stays one."""
    value = line.removeprefix("# ")
    return value if value.startswith("[") or " = " in value.split("#")[0] else line


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("vip = '10.0.0.300'", "vip: '10.0.0.300' is wrong"),
        ("port = 0", "port: 0 is wrong"),
        ("dscp = 64", "dscp: 64 is wrong; right would be a whole number from 1 to 63"),
        ("bad_request = 'drop'", "bad_request: 'drop' is wrong; right would be 'reset' or 'so"),
        ("max_head = 1023", "max_head: 1023 is wrong"),
        ("window_scale = 15", "window_scale: 15 is wrong"),
        ("name = ''", "name: '' is wrong"),
    ],
)
def test_values_of_a_service(line: str, problem: str) -> None:
    key = line.split(" ", maxsplit=1)[0]
    kept = [text for text in SERVICE.splitlines() if not text.startswith(key)]
    found = problems("\n".join([*kept, line, BACKEND]))
    assert len(found) == 1
    assert found[0].startswith(f"b.toml: services[0].{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "services: is missing"),
        ("services = []", "services: is empty"),
        (SERVICE + "backends = []", "services[0].pool: is missing"),
        (SERVICE + "pool = 'x'", "services[0].pool: there is no pool 'x'"),
        (SERVICE + "pool = 'x'\n" + BACKEND, "services[0].backends: and pool are both there"),
        (SERVICE + BACKEND + "weight = -1", "services[0].backends[0].weight: -1 is wrong"),
        (
            SERVICE + BACKEND + BACKEND.replace("11", "12") + "name = '10.0.0.11'",
            "services[0].backends[1].name: '10.0.0.11' is taken by backends[0]",
        ),
        (SERVICE + BACKEND.replace("11", "1"), "services[0].backends[0].bridge: 10.0.0.1 is a vip"),
    ],
)
def test_values_that_cannot_go_together(text: str, problem: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"b.toml: {problem}")


@pytest.mark.parametrize(
    ("vip", "port", "dscp", "problem"),
    [
        ("10.0.0.1", 81, 1, None),
        ("10.0.0.2", 80, 2, None),
        ("10.0.0.1", 80, 1, "services[1].port: 10.0.0.1:80 is service '10.0.0.1:80' already"),
        ("10.0.0.1", 81, 2, "services[1].dscp: 2 is wrong for vip 10.0.0.1; right would be 1"),
        ("10.0.0.2", 81, 1, "services[1].dscp: 1 names vip 10.0.0.1"),
    ],
)
def test_dscp_and_port_name_one_service(
    vip: str, port: int, dscp: int, problem: str | None
) -> None:
    second = f"[[services]]\nname = 'b'\nvip = '{vip}'\nport = {port}\ndscp = {dscp}\n{BACKEND}"
    text = SERVICE + BACKEND + second
    if problem is None:
        assert len(config.parse(text, "b.toml").services) == 2
    else:
        assert problems(text)[0].startswith(f"b.toml: {problem}")


def test_flags_override_the_only_service() -> None:
    changed = config.override(
        config.default(),
        vip="10.0.0.1",
        port=81,
        dscp=2,
        bridge=("10.0.0.11", "10.0.0.12"),
        interface="eth1",
        datapath="nfqueue",
        log_level="debug",
    )
    backends = (Backend("10.0.0.11", "10.0.0.11"), Backend("10.0.0.12", "10.0.0.12"))
    service = Service("10.0.0.1:81", "10.0.0.1", 81, 2, None, backends)
    assert changed == Config((service,), interface="eth1", datapath="nfqueue", log_level="debug")


def test_no_flags_change_nothing() -> None:
    assert config.override(config.default()) == config.default()


def test_flags_for_a_service_need_a_single_one() -> None:
    two = config.parse(SERVICE + BACKEND + SERVICE.replace("80", "81") + BACKEND, "b.toml")
    assert config.override(two, log_level="error").log_level == "error"
    with pytest.raises(SettingsError, match="the configuration has 2 services"):
        config.override(two, port=82)


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^--bridge: 'x' is wrong"):
        config.override(config.default(), bridge=("x",))
    with pytest.raises(SettingsError, match=r"^--log-level: 'x' is wrong"):
        config.override(config.default(), log_level="x")
