"""Both commands as a user meets them: what is printed, and the exit code."""

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import balancer.program.cli as balancer_cli
import balancer.program.startup as balancer_startup
import packetbridge.program.cli as bridge_cli
import packetbridge.program.startup as bridge_startup
from common import __version__
from common.adapters import keyfile
from common.adapters.aside import aside
from common.adapters.bpf.libbpf import BpfError
from common.adapters.checks import Problem
from common.adapters.firewall import FirewallError
from common.program import commands
from common.program.datapath import DatapathError, choose_datapath

PROVISIONING = Path(__file__).parents[2] / "provisioning"
PROGRAMS = {
    "balancer": (balancer_cli, balancer_startup),
    "packetbridge": (bridge_cli, bridge_startup),
}
Run = Callable[..., Result]


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with no files of ours and nothing to complain of; nothing is really started."""
    monkeypatch.setattr(commands, "is_root", lambda: False)
    for cli, startup in PROGRAMS.values():
        monkeypatch.setattr(cli.PROGRAM, "standard_file", str(tmp_path / "standard.toml"))
        monkeypatch.setattr(startup, "problems", lambda config: [])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The configurations that were served."""
    served: list[object] = []
    for name in PROGRAMS:
        module = types.ModuleType(f"{name}.program.serve")
        vars(module)["serve"] = lambda config, again: served.append(config)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return served


def run(program: str, *arguments: str) -> Result:
    cli: click.Command = PROGRAMS[program][0].main
    result = CliRunner().invoke(cli, arguments, prog_name=program)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_examples_files_and_exit_codes(program: str, flag: str) -> None:
    result = run(program, flag)
    assert result.exit_code == 0
    for word in ("Examples:", f"/etc/l3dsr/{program}.toml", "Exit codes:", "check", "keygen"):
        assert word in result.output


def test_version(program: str) -> None:
    assert run(program, "--version").output == f"{program} {__version__}\n"


def test_without_arguments_the_default_is_served(program: str, started: list[object]) -> None:
    assert run(program).exit_code == 0
    assert started == [PROGRAMS[program][0].config.default()]


def test_without_config_the_standard_file_is_served(
    program: str, started: list[object], tmp_path: Path
) -> None:
    text = (PROVISIONING / f"{program}.toml").read_text() + "[limits]\nflows = 77\n"
    (tmp_path / "standard.toml").write_text(text)
    assert run(program).exit_code == 0
    (config,) = started
    assert config.limits.flows == 77  # type: ignore[attr-defined]


def test_a_wrong_standard_file_is_not_passed_over(
    program: str, started: list[object], tmp_path: Path
) -> None:
    (tmp_path / "standard.toml").write_text("nonsense = 1")
    result = run(program)
    assert result.exit_code == 2
    assert f"{tmp_path}/standard.toml: nonsense: no such key" in result.output
    assert not started


def test_warnings_are_shown_and_fatal_problems_prevent_the_start(
    program: str, started: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Problem("it rains", "open umbrella", fatal=False)]
    monkeypatch.setattr(PROGRAMS[program][1], "problems", lambda config: found)
    result = run(program)
    assert result.exit_code == 0
    assert result.stderr == "warning: it rains\n  mend: open umbrella\n"
    assert len(started) == 1
    found.append(Problem("it burns", "leave"))
    result = run(program)
    assert result.exit_code == 1
    assert result.stderr.endswith("error: it burns\n  mend: leave\n")
    assert len(started) == 1


@pytest.mark.parametrize(
    "failure", [FirewallError("no such chain"), OSError("Failed to create queue 3310.")]
)
def test_a_failure_while_serving_is_a_message(
    program: str, started: list[object], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def serve(config: object, again: object) -> None:
        raise failure

    monkeypatch.setattr(sys.modules[f"{program}.program.serve"], "serve", serve)
    result = run(program)
    assert result.exit_code == 1
    assert result.stderr == f"{program}: {failure}\n"


def test_a_data_path_that_cannot_be_had_is_a_message(program: str) -> None:
    """As on a host whose kernel or library refuses it; `auto` would go on."""

    def refused(*_: object) -> None:
        raise BpfError("the kernel says no")

    with pytest.raises(DatapathError, match="datapath ebpf: the kernel says no; nfqueue, or auto"):
        choose_datapath("ebpf", refused)
    assert choose_datapath("auto", refused) is None
    assert choose_datapath("nfqueue", refused) is None
    assert choose_datapath("auto", lambda: program) == program


def test_a_key_files_error_crosses_the_process_boundary(tmp_path: Path) -> None:
    """Both of its arguments, and its class; on a bridge the cure is a copy."""
    path = str(tmp_path / "key")
    with pytest.raises(keyfile.Unreadable, match="does not exist") as caught:
        aside(keyfile.load, path, "packetbridge")
    assert caught.value.cure == f"copy {path} from the balancer's host"
    with pytest.raises(keyfile.Unreadable) as caught:
        aside(keyfile.load, path, "balancer")
    assert caught.value.cure == f"balancer keygen {path}"


def test_check_tells_services_apart(tmp_path: Path) -> None:
    file = tmp_path / "balancer.toml"
    file.write_text(
        "".join(
            f"[[services]]\nname = '{name}'\nvip = '10.0.0.1'\nport = 443\ndscp = 1\n{kind}\n"
            "backends = [{ bridge = '10.0.0.11' }]\n"
            for name, kind in (("sites", "inspect = 'tls'"), ("quic", "protocol = 'udp'"))
        )
    )
    output = run("balancer", "check", "--config", str(file)).output
    assert "service sites (10.0.0.1:443): DSCP 1, inspect tls, backends 10.0.0.11" in output
    assert "service quic (10.0.0.1:443/udp): DSCP 1, inspect none, backends 10.0.0.11" in output


def test_flags_hold_before_and_after_check() -> None:
    result = run("balancer", "--port", "81", "--dscp", "3", "check", "--dscp", "4")
    assert result.exit_code == 0
    assert "service 192.168.33.10:81: DSCP 4, inspect http, backends 192.168.33.20" in result.output
    result = run("packetbridge", "--balancer", "5:10.0.0.1", "check", "--backend", "10.0.0.2:8080")
    assert result.exit_code == 0
    assert "server 10.0.0.2:8080, for VIP 10.0.0.1" in result.output


@pytest.mark.parametrize("before", [True, False])
def test_check_takes_the_configuration_on_either_side(program: str, before: bool) -> None:
    flag = ["--config", str(PROVISIONING / f"{program}.toml")]
    result = run(program, *(flag if before else []), "check", *([] if before else flag))
    assert result.exit_code == 0
    assert "the configuration is valid" in result.output


def test_check_lists_every_mistake(program: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("queue = -1\nlog_levle = 'info'\n")
    result = run(program, "check", "--config", str(file))
    assert result.exit_code == 2
    assert f"{file}: queue: -1 is wrong" in result.stderr
    assert f"{file}: log_levle: no such key; did you mean 'log_level'?" in result.stderr


def test_check_refuses_a_bad_key(program: str, tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "c.toml"
    example = (PROVISIONING / f"{program}.toml").read_text()
    file.write_text(f"key_file = '{key}'\n{example}")
    result = run(program, "check", "--config", str(file))
    assert (result.exit_code, "not checked: key file" in result.output) == (0, True)
    key.write_text("secret")
    key.chmod(0o600)
    result = run(program, "check", "--config", str(file))
    assert result.exit_code == 2
    assert f"key file {key} does not hold" in result.stderr


def test_check_as_root_tells_of_the_host(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "is_root", lambda: True)
    found = [Problem("it burns", "leave")]
    monkeypatch.setattr(PROGRAMS[program][1], "host_problems", lambda config: found)
    result = run(program, "check")
    assert result.exit_code == 0
    assert "error: it burns\n  mend: leave\n" in result.stderr
    assert result.stdout.endswith("the configuration is valid, but this host is not ready\n")


def test_check_as_root_tells_of_a_bad_key_and_the_host(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(commands, "is_root", lambda: True)
    found = [Problem("it burns", "leave")]
    monkeypatch.setattr(PROGRAMS[program][1], "host_problems", lambda config: found)
    key, file = tmp_path / "key", tmp_path / "c.toml"
    file.write_text(f"key_file = '{key}'\n" + (PROVISIONING / f"{program}.toml").read_text())
    result = run(program, "check", "--config", str(file))
    assert result.exit_code == 0
    assert result.output.count("does not exist") == 1
    keyfile.create(str(key))
    key.chmod(0o644)
    result = run(program, "check", "--config", str(file))
    assert result.exit_code == 2
    assert "error: it burns" in result.stderr
    assert result.stderr.count("has mode 0644") == 1
    assert "valid" not in result.stdout


def test_check_tells_that_a_data_path_cannot_be_had(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise BpfError("the kernel says no")

    monkeypatch.setattr(commands, "is_root", lambda: True)
    monkeypatch.setattr(PROGRAMS[program][0].PROGRAM, "load_fast_path", refused)
    result = run(program, "--datapath", "ebpf", "check")
    assert result.exit_code == 0
    assert "a start would fail: datapath ebpf: the kernel says no" in result.stderr
    assert "a start would fail" not in run(program, "check").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "/nonexistent/file"],
        ["--config", "/"],
        ["--nonsense"],
        ["nonsense"],
        ["--port", "0"],
        ["--datapath", "xdp"],
    ],
)
def test_usage_errors(program: str, arguments: list[str], started: list[object]) -> None:
    result = run(program, *arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert not started


def test_a_configuration_that_is_not_text(program: str, tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b"log_level = '\xe9'")
    result = run(program, "--config", str(file))
    assert result.exit_code == 2
    assert "is not UTF-8 text" in result.stderr


def test_wrong_flags_are_named() -> None:
    assert "--vip: 'x' is wrong" in run("balancer", "--vip", "x").stderr
    assert "--balancer: 'x' is wrong" in run("packetbridge", "--balancer", "x").stderr


def test_all_wrong_flags_are_named_at_once() -> None:
    arguments = "--vip 300.1.1.1 --dscp 77 --port 0 --bridge x"
    stderr = run("balancer", *arguments.split()).stderr
    for flag in ("vip", "dscp", "port", "bridge"):
        assert stderr.count(f"--{flag}: ") == 1
    assert run("balancer", *["--bridge", "10.0.0.1"] * 2).stderr.count("\n") == 1
    arguments = "--port 0 --address y --backend z --balancer q"
    stderr = run("packetbridge", *arguments.split()).stderr
    for flag in ("port", "address", "backend", "balancer"):
        assert stderr.count(f"--{flag}: ") == 1


def test_keygen_makes_a_key_once(program: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert run(program, "keygen", str(key)).exit_code == 0
    text = key.read_text()
    result = run(program, "keygen", str(key))
    assert result.exit_code == 2
    assert "exists and is not overwritten" in result.stderr
    assert key.read_text() == text


def test_decode_hands_over_file_and_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    capture = tmp_path / "x.pcap"
    capture.write_bytes(b"")
    module = types.ModuleType("balancer.program.decode")

    class DecodeError(Exception):
        pass

    def decode(file: str, config: object, echo: Callable[[str], None]) -> None:
        vip = config.services[0].vip  # type: ignore[attr-defined]
        echo(f"{file} {vip}")
        raise DecodeError("the end is missing")

    vars(module).update(decode=decode, DecodeError=DecodeError)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("balancer.program.decode", module, raising=False)
    result = run("balancer", "--vip", "10.0.0.1", "decode", str(capture))
    assert result.exit_code == 1
    assert result.stdout == f"{capture} 10.0.0.1\n"
    assert result.stderr == "balancer: the end is missing\n"
    assert run("balancer", "decode", str(tmp_path / "none.pcap")).exit_code == 2


def test_scapy_is_not_loaded_to_serve(program: str) -> None:
    """It takes a good part of a second, and is for tests and captures only."""
    modules = f"{program}.program.cli, {program}.program.startup"
    code = f"import sys, {modules}; print('scapy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
