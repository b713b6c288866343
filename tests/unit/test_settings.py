"""Reading TOML into settings classes: every mistake at once, each with its place and its cure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pytest

from common.core import settings
from common.core.settings import Joined, Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Wheel(Settings):
    size: Annotated[int, settings.whole(1, 30)]
    server_address: Annotated[str, settings.IPV4] = "10.0.0.1"
    server_port: Annotated[int, settings.PORT] = 1
    joined: ClassVar[dict[str, Joined]] = {
        "server": Joined(("server_address", "server_port"), settings.ENDPOINT)
    }


@dataclass(frozen=True, slots=True)
class Brake(Settings):
    delay: Annotated[float, settings.seconds(0.5, 10)] = 1.0


@dataclass(frozen=True, slots=True)
class Cart(Settings):
    wheels: tuple[Wheel, ...]
    colour: Literal["red", "blue"] = "red"
    brake: Brake = field(default_factory=Brake)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if len(self.wheels) > 2:
            yield "wheels", f"{len(self.wheels)} are wrong; right would be at most 2"


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings.read(Cart, text, "cart.toml")
    assert str(caught.value).splitlines() == caught.value.problems
    return caught.value.problems


def test_values_defaults_and_nested_tables() -> None:
    cart = settings.read(
        Cart, "[brake]\ndelay = 2\n[[wheels]]\nsize = 3\nserver = '10.0.0.2:80'", "cart.toml"
    )
    assert cart == Cart((Wheel(3, "10.0.0.2", 80),), "red", Brake(2.0))
    assert isinstance(cart.brake.delay, float)


def test_every_mistake_is_reported_with_file_path_and_cure() -> None:
    text = """
        color = "red"
        colour = "green"
        brake = { delay = nan, wheel = 1 }
        [[wheels]]
        size = 31
        [[wheels]]
        server = "10.0.0.2"
    """
    assert problems(text) == [
        "cart.toml: color: no such key; did you mean 'colour'?",
        "cart.toml: wheels[0].size: 31 is wrong; right would be a whole number from 1 to 30",
        "cart.toml: wheels[1].server: '10.0.0.2' is wrong; "
        "right would be ADDRESS:PORT, such as '192.168.33.30:80'",
        "cart.toml: wheels[1].size: is missing; right would be a whole number from 1 to 30",
        "cart.toml: colour: 'green' is wrong; right would be 'red' or 'blue'",
        "cart.toml: brake.wheel: no such key; right would be the keys delay",
        "cart.toml: brake.delay: nan is wrong; right would be a number of seconds from 0.5 to 10",
    ]


def test_rules_between_values_are_tried_beside_other_mistakes() -> None:
    text = "colour = 1\n" + "[[wheels]]\nsize = 1\n" * 3
    assert problems(text) == [
        "cart.toml: colour: 1 is wrong; right would be 'red' or 'blue'",
        "cart.toml: wheels: 3 are wrong; right would be at most 2",
    ]


def test_syntax_error_names_the_line() -> None:
    (problem,) = problems("colour = 'red'\nwheels\n")
    assert problem.startswith("cart.toml: not TOML: ")
    assert "line 2" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "wheels: is missing; right would be at least one [[wheels]] with the keys size, "),
        ("wheels = 1", "wheels: 1 is wrong; right would be tables, each [[wheels]]"),
        ("wheels = [1]", "wheels[0]: 1 is wrong; right would be a table of the keys size, server"),
        ("brake = 1\nwheels = []", "brake: 1 is wrong; right would be a table of the keys delay"),
        ("[[wheels]]\nsize = true", "wheels[0].size: True is wrong"),
        ("[[wheels]]\nsize = 1\nserver_port = 1", "wheels[0].server_port: no such key; "),
    ],
)
def test_wrong_shapes(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"cart.toml: {problem}")


def test_an_instance_checks_itself() -> None:
    with pytest.raises(SettingsError, match=r"^size: 0 is wrong"):
        Wheel(0)


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0", "10.0.0.256", "010.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", 1],
)
def test_unfit_addresses(address: object) -> None:
    with pytest.raises(ValueError, match="right would be the IPv4 address of one host"):
        settings.IPV4(address)


@pytest.mark.parametrize("text", ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "a:80", ":80", 80])
def test_unfit_endpoints(text: object) -> None:
    with pytest.raises(ValueError, match="right would be ADDRESS:PORT"):
        settings.ENDPOINT(text)


def test_port_ranges() -> None:
    assert settings.PORT_RANGE("20000-29999") == (20000, 29999)
    assert settings.PORT_RANGE((80, 80)) == (80, 80)
    for unfit in ("2-1", "1", "0-5", "1-65536", "1-2-3", "1_0-20", (1,), [1, 2], 5):
        with pytest.raises(ValueError, match="right would be a range of ports"):
            settings.PORT_RANGE(unfit)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a:1", "x" * 16, 1])
def test_unfit_interface_names(name: object) -> None:
    with pytest.raises(ValueError, match="right would be an interface's name"):
        settings.INTERFACE(name)


def test_problems_with_flags_name_the_flag() -> None:
    with pytest.raises(SettingsError) as caught, settings.flags():
        raise SettingsError(["log_level: is wrong", "wheels[0].size: is wrong"])
    assert caught.value.problems == ["--log-level: is wrong", "wheels[0].size: is wrong"]
