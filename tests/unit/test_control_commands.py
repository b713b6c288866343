"""The balancer's commands on its core, without a program: what they change, say and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

import balancer.program.cli as balancer_cli
import packetbridge.program.cli as bridge_cli
from balancer.core import config
from balancer.program.control import backends, flows, tables
from common.adapters.control.server import Command, CommandError, Later
from common.core.flow_id import flow_id
from common.program.control.basics import Done, Reloading
from common.program.control.rendering import plain
from common.program.control.shell import ClickCompleter, history
from common.program.control.top import picture
from tests.unit.balancer_stage import BRIDGES, REQUEST, Client, Stage
from tests.unit.test_control import running


def do(table: dict[str, Command], name: str, **arguments: Any) -> Any:
    """What a command gives: its result, or the items of its pages."""
    found = table[name].run(arguments)
    if not hasattr(found, "send"):
        return found
    items: list[Any] = []
    while True:
        try:
            page = next(found)
        except StopIteration as done:
            return items if done.value is None else done.value
        items += [] if isinstance(page, Later) else page


class Configured:
    """A configuration in force, that takes another at once, or has something against it."""

    def __init__(self) -> None:
        self.config = config.parse(CONFIGURATION, "file")
        self.against: list[str] = []

    def apply(self, wanted: config.Config, done: Done) -> None:
        if not self.against:
            self.config = wanted
        done(self.against)


CONFIGURATION = """
[[services]]
name = "s"
vip = "192.0.2.10"
port = 80
dscp = 1
pool = "p"
[[pools]]
name = "p"
backends = [{ name = "b0", bridge = "203.0.113.20" }, { name = "b1", bridge = "203.0.113.21" }]
"""


@pytest.fixture
def stage() -> Stage:
    return Stage(bridges=BRIDGES[:2])


@pytest.fixture
def configured() -> Configured:
    return Configured()


@pytest.fixture
def commands(stage: Stage, configured: Configured) -> dict[str, Command]:
    made = backends.commands(stage.core, Reloading(), configured)
    return {**made, **flows.commands(stage.core)}


def test_drain_ready_and_weight(stage: Stage, commands: dict[str, Command]) -> None:
    client = Client(stage).connect()
    client.send(REQUEST)
    (busy,) = [row for row in do(commands, "backends") if row["pending"]]
    name = f"p/{busy['name']}"
    assert do(commands, "drain", backend=name) == f"{name}: takes no new connections; 1 go on"
    (drained,) = [row for row in do(commands, "backends") if row["state"] == "draining"]
    assert drained["name"] == busy["name"]
    assert do(commands, "ready", backend=name) == f"{name}: up"
    assert do(commands, "weight", backend=name, weight=0) == f"{name}: weight 0, was 1"
    assert [row["state"] for row in do(commands, "backends", pool="p")].count("unused") == 1
    with pytest.raises(CommandError, match="right would be a weight from 0 to 1000"):
        do(commands, "weight", backend=name, weight=1001)
    for wrong in ("p/none", "none/b0", "p", "b0", ""):
        with pytest.raises(CommandError, match="right would be POOL/BACKEND"):
            do(commands, "drain", backend=wrong)
    with pytest.raises(CommandError, match="there is no pool 'q'"):
        do(commands, "backends", pool="q")


def test_add_and_remove_change_the_configuration_in_force(
    commands: dict[str, Command], configured: Configured
) -> None:
    said = do(commands, "add", backend="p/new", bridge="203.0.113.30", weight=3)
    assert said == "p/new: added, bridge 203.0.113.30, weight 3"
    assert configured.config.pools[0].backends[2] == config.Backend("new", "203.0.113.30", 3)
    with pytest.raises(CommandError, match="'new' is taken"):
        do(commands, "add", backend="p/new", bridge="203.0.113.31")
    with pytest.raises(CommandError, match="bridge: 'x' is wrong; right would be"):
        do(commands, "add", backend="p/x", bridge="x")
    with pytest.raises(CommandError, match="names no pool"):
        do(commands, "add", backend="q/x", bridge="203.0.113.31")
    assert "removed" in do(commands, "remove", backend="p/b0")
    assert [each.name for each in configured.config.pools[0].backends] == ["b1", "new"]
    configured.against.append("no route to 203.0.113.32")
    with pytest.raises(CommandError, match=r"no route to 203.0.113.32"):
        do(commands, "add", backend="p/far", bridge="203.0.113.32")


def test_flows_are_listed_by_what_is_asked_and_ended(
    stage: Stage, commands: dict[str, Command]
) -> None:
    asking = [Client(stage, ("198.51.100.7", port)).connect() for port in (40000, 40001, 40002)]
    asking[0].send(REQUEST)
    asking[1].send(REQUEST)
    assert len(do(commands, "flows")) == 3
    assert len(do(commands, "flows", limit=2)) == 2
    assert len(do(commands, "flows", state="handed")) == 2
    assert do(commands, "flows", client="198.51.100.8") == []
    (one,) = do(commands, "flows", client="198.51.100.7:40000")
    assert do(commands, "flows", backend=one["backend"]) == do(commands, "flows", state="handed")
    assert do(commands, "flows", service="other") == []
    key = stage.core.table.find(
        b"\xc6\x33\x64\x07\xc0\x00\x02\x0a" + (40000).to_bytes(2, "big") + b"\x00\x50"
    )
    assert key is not None
    assert one["id"] == flow_id(key.incarnation)
    assert one["id"] in plain(*tables.flows([one]))
    stage.sent()
    assert do(commands, "kill", flow=one["id"]) == {"killed": [one["id"]]}
    assert [(row["client"]) for row in do(commands, "flows")] == [
        "198.51.100.7:40001",
        "198.51.100.7:40002",
    ]
    assert len(do(commands, "kill", flow="198.51.100.7:40002")["killed"]) == 1
    for wrong, error in (
        (one["id"], "there is no flow"),
        ("198.51.100.7", "names no flow; right would be a flow's id"),
        ("198.51.100.7:99999", "names no flow"),
    ):
        with pytest.raises(CommandError, match=error):
            do(commands, "kill", flow=wrong)
    for name, value in (("client", "x"), ("state", "gone"), ("limit", 0)):
        with pytest.raises(CommandError, match=f"{name}: .* is wrong; right would be"):
            do(commands, "flows", **{name: value})


def test_changes_of_the_configuration_wait_for_each_other() -> None:
    under_way: list[Done] = []
    reloading = Reloading(under_way.append)
    first, second = reloading.begin(), reloading.begin()
    reloading.signalled()  # one is waiting already
    assert len(under_way) == 1
    under_way[0](["a mistake"])
    assert (first, second) == ([["a mistake"]], [])
    under_way[1]([])
    assert second == [[]]
    assert len(under_way) == 2
    with pytest.raises(CommandError, match="at its next start"):
        Reloading().begin()


def test_a_frame_of_top_has_rates() -> None:
    backend = {"pool": "p", "name": "b0", "state": "up", "reason": "", "pending": 3, "given": 100}
    status = {"program": "balancer", "uptime": 1.0, "datapath": "nfqueue", "gauges": {"flows": 3}}
    before = {"at": 1.0, "status": {**status, "counts": {"steered": 100}}, "backends": [backend]}
    now = {
        "at": 3.0,
        "status": {**status, "counts": {"steered": 4100, "syn": 0}},
        "backends": [backend | {"given": 150}],
    }
    text = plain(picture(before, now))
    assert "steered  2,000" in text
    assert re.search(r" b0 .* 150 +25 ", text)


def test_hostile_names_are_shown_as_they_are() -> None:
    names = ("id", "client", "protocol", "service", "backend", "state", "path")
    row = dict.fromkeys(names, "[red]x[/red]")
    assert "[red]x[/red]" in plain(*tables.flows([row | {"age": 1.0, "idle": 0.0}]))


# --- the commands as they are typed ---


@pytest.mark.parametrize("cli", [balancer_cli, bridge_cli], ids=["balancer", "packetbridge"])
def test_a_program_that_is_not_running_is_told_of_in_one_line(cli: Any, tmp_path: Path) -> None:
    name = cli.PROGRAM.name
    path = str(tmp_path / "none.sock")
    typed = [["status"], ["backends"], ["flows"], ["drain", "x"], ["reload"], ["log-level", "info"]]
    typed += [["top"], ["trace", "192.0.2.1"], ["shell"]]
    for words in typed:
        result = CliRunner().invoke(cli.main, [*words, "--socket", path], prog_name=name)
        told = f"{name} is not running (no answer at {path})\n"
        assert (result.exit_code, result.output) == (1, told), words


@pytest.mark.parametrize("cli", [balancer_cli, bridge_cli], ids=["balancer", "packetbridge"])
def test_the_socket_is_the_configurations(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.toml"
    file.write_text('[control]\nsocket = "/nowhere/of.file"\n[[services]]\nnot = "valid"\n')

    def says(*words: str) -> str:
        return CliRunner().invoke(cli.main, list(words), prog_name="p").output

    assert "/nowhere/of.file" in says("status", "--config", str(file))
    assert "/nowhere/of.file" in says("--config", str(file), "status")
    assert "/nowhere/else" in says("status", "--config", str(file), "--socket", "/nowhere/else")
    monkeypatch.setattr(cli.PROGRAM, "standard_file", str(tmp_path / "none"))
    assert f"/run/l3dsr/{cli.PROGRAM.name}.sock" in says("status")
    file.write_text('[control]\nsocket = ""\n')
    assert "configured without a control socket" in says("status", "--config", str(file))
    missing = CliRunner().invoke(cli.main, ["status", "--config", "/none"], prog_name="p")
    assert (missing.exit_code, missing.output) == (2, "Error: /none: there is no such file\n")


def test_the_prompt_completes_commands_options_choices_and_names(
    commands: dict[str, Command], tmp_path: Path
) -> None:
    from common.adapters.control.place import listening  # noqa: PLC0415

    path = str(tmp_path / "socket")
    promptable = click.Group("", commands=dict(balancer_cli.main.commands))
    with listening(path, None) as listener, running(**commands) as program:
        program.server.listen(listener)
        program.start()
        completer = ClickCompleter(promptable, {"socket": path})

        def completions(text: str) -> list[str]:
            found = completer.get_completions(Document(text), CompleteEvent())
            return [each.text for each in found]

        assert completions("sta") == ["status"]
        assert {"drain", "doctor", "decode"} <= set(completions("d"))
        assert completions("drain p/") == ["p/b0", "p/b1"]
        assert completions("weight p/b1") == ["p/b1"]
        assert "--limit" in completions("flows --l")
        assert completions("log-level d") == ["debug"]
        assert completions("drain 'p/") == []


def test_the_history_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history("balancer").append_string("status")
    file = tmp_path / "l3dsr" / "balancer_history"
    assert "status" in file.read_text()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    history("balancer").append_string("status")


def test_json_is_json(commands: dict[str, Command], tmp_path: Path) -> None:
    from common.adapters.control.place import listening  # noqa: PLC0415

    path = str(tmp_path / "socket")
    with listening(path, None) as listener, running(**commands) as program:
        program.server.listen(listener)
        program.start()
        words = ["backends", "--json", "--socket", path]
        result = CliRunner().invoke(balancer_cli.main, words, prog_name="balancer")
        assert [each["name"] for each in json.loads(result.output)] == ["b0", "b1"]


def test_changes_that_wait_are_bounded() -> None:
    """Whoever asks for them may leave before they are done."""
    reloading = Reloading(lambda _: None)  # one that takes its time
    for _ in range(1 + 32):
        reloading.begin()
    with pytest.raises(CommandError, match="32 changes"):
        reloading.begin()
