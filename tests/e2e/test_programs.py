"""The programs as their host sees them: what they set up and leave, when they do not start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import (
    CONFIGURATIONS,
    LAB,
    NAME,
    PROGRAMS,
    ROOT,
    SCRIPT,
    Lab,
    namespace,
    running,
    until,
)

pytestmark = pytest.mark.root

COMMANDS = {"balancer": "balancer", "backend1": "packetbridge", "backend2": "packetbridge"}
QUEUES = {"balancer": 3310, "backend1": 3320, "backend2": 3320}
HOSTS = ("client", "client2", "balancer", "backend1", "backend2", "switch")


@pytest.fixture(scope="module", autouse=True)
def begun_anew(running_lab: Lab) -> None:
    """A program that was reconfigured has rules for as long as somebody needs them: these are
    compared with those of a start."""
    for program in PROGRAMS:
        running_lab.script("restart", program)


@pytest.fixture
def foreign_rules(lab: Lab) -> Iterator[list[str]]:
    """Rules of somebody else in the same tables, in each program's namespace; gives two of them."""
    rules = [
        ["-t", "raw", "PREROUTING", "-p", "udp", "--dport", "9999", "-j", "DROP"],
        ["-t", "filter", "INPUT", "-p", "udp", "--dport", "9998", "-j", "DROP"],
    ]
    for host in PROGRAMS:
        for table_option, table, *rule in rules:
            lab.run(host, "iptables", table_option, table, "-A", *rule)
    yield ["-A " + " ".join(rule[2:]).replace("udp", "udp -m udp") for rule in rules]
    for host in PROGRAMS:
        for table_option, table, *rule in rules:
            lab.run(host, "iptables", table_option, table, "-D", *rule)


@pytest.fixture
def repaired(lab: Lab) -> Iterator[None]:
    """Whatever the test stopped runs again afterwards."""
    yield
    for program in PROGRAMS:
        if not lab.alive(program):
            lab.script("restart", program)


# --- stopping and starting ---


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_signal_removes_all_rules(
    lab: Lab, foreign_rules: list[str], repaired: None, program: str, ending: signal.Signals
) -> None:
    rules = lab.rules(program)
    assert any("NFQUEUE" in rule for rule in rules)
    start = lab.log_end(program)
    os.kill(lab.pid(program), ending)
    until(lambda: not lab.alive(program), 5, f"{program} ends")
    if lab.in_kernel and ending is signal.SIGTERM:
        assert lab.rules(program) == rules  # what the kernel leaves to the program waits for it
        assert _filters(lab, program)
        flush(lab, program)
    left = lab.rules(program)
    assert [rule for rule in left if "L3DSR" in rule or "NFQUEUE" in rule] == []
    assert set(foreign_rules) <= set(left)
    assert _filters(lab, program) == []
    assert f"stopping: {ending.name}" in lab.log(program, start)
    assert _queues(lab, program) == []
    lab.script("start", program)
    assert lab.rules(program) == rules
    assert lab.curl("/1k").status == 200


@pytest.mark.parametrize("program", PROGRAMS)
def test_rules_of_a_killed_program_are_taken_over(
    lab: Lab, foreign_rules: list[str], repaired: None, program: str
) -> None:
    rules = lab.rules(program)
    os.kill(lab.pid(program), signal.SIGKILL)
    until(lambda: not lab.alive(program), 5, f"{program} ends")
    assert lab.rules(program) == rules  # so that no packet gets past meanwhile
    lab.script("start", program)
    assert lab.rules(program) == rules  # the same and not twice
    assert lab.curl("/1k").status == 200
    os.kill(lab.pid(program), signal.SIGINT)
    until(lambda: not lab.alive(program), 5, f"{program} ends")
    left = lab.rules(program)
    assert [rule for rule in left if "L3DSR" in rule or "NFQUEUE" in rule] == []
    assert set(foreign_rules) <= set(left)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_killed_program_left_can_be_flushed(
    lab: Lab, foreign_rules: list[str], repaired: None, program: str
) -> None:
    refused = lab.result(program, *flush_command(program))
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    os.kill(lab.pid(program), signal.SIGKILL)
    until(lambda: not lab.alive(program), 5, f"{program} ends")
    flush(lab, program)
    left = lab.rules(program)
    assert [rule for rule in left if "L3DSR" in rule or "NFQUEUE" in rule] == []
    assert set(foreign_rules) <= set(left)
    assert _filters(lab, program) == []
    flush(lab, program)  # there is nothing, and nothing to complain of


def test_restarts_leave_nothing_behind(lab: Lab) -> None:
    running = {program: lab.rules(program) for program in PROGRAMS}
    for _ in range(3):
        for program in PROGRAMS:
            lab.script("restart", program)
    assert {program: lab.rules(program) for program in PROGRAMS} == running
    assert lab.curl("/1k").status == 200


def test_connection_through_a_dead_balancer_is_not_reset(lab: Lab, repaired: None) -> None:
    """The rules of a killed balancer drop what they cannot queue: no RST by its kernel."""
    with lab.connect() as tcp:
        os.kill(lab.pid("balancer"), signal.SIGKILL)
        until(lambda: not lab.alive("balancer"), 5, "the balancer ends")
        tcp.settimeout(0.5)
        tcp.sendall(b"GET /1k HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            tcp.recv(1)


# --- refusing to start ---


@pytest.mark.parametrize("program", PROGRAMS)
def test_second_instance_by_another_queue_is_refused(
    lab: Lab, program: str, tmp_path: Path
) -> None:
    """It would take the first one's rules and connections; and so would `flush`."""
    rules = lab.rules(program)
    text = (LAB / "etc" / CONFIGURATIONS[program]).read_text()
    other = tmp_path / "other.toml"
    other.write_text(text.replace(f"queue = {QUEUES[program]}", "queue = 4700"))
    for done in (
        _start(lab, program, other),
        lab.result(program, *flush_command(program), "--config", str(other)),
    ):
        assert done.returncode == 1
        assert f"runs on this host already, process {lab.pid(program)}" in done.stderr
    assert lab.rules(program) == rules
    assert lab.curl("/1k").status == 200


@pytest.mark.parametrize("program", PROGRAMS)
def test_second_instance_is_refused(lab: Lab, program: str) -> None:
    rules = lab.rules(program)
    done = _start(lab, program, LAB / "etc" / CONFIGURATIONS[program])
    assert done.returncode == 1
    assert f"queue {QUEUES[program]} is in use by process {lab.pid(program)}" in done.stderr
    assert lab.alive(program)
    assert lab.rules(program) == rules
    assert lab.curl("/1k").status == 200


@pytest.fixture
def stopped(lab: Lab, program: str) -> Iterator[list[str]]:
    """The program, ended; gives the rules that are there without it."""
    lab.script("stop", program)
    yield lab.rules(program)
    lab.script("restart", program)


KEY = LAB / "etc" / "key"


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_missing_key(lab: Lab, program: str, stopped: list[str], tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    done = _start(lab, program, _edited(tmp_path, program, f"{KEY}", f"{absent}"))
    assert done.returncode == 1
    assert f"key file {absent} does not exist" in done.stderr
    copy = f"copy {absent} from the balancer's host"
    assert (f"balancer keygen {absent}" if program == "balancer" else copy) in done.stderr
    assert lab.rules(program) == stopped


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_key_that_others_can_read(
    lab: Lab, program: str, stopped: list[str], tmp_path: Path
) -> None:
    open_key = tmp_path / "key"
    open_key.write_text(KEY.read_text())
    open_key.chmod(0o644)
    done = _start(lab, program, _edited(tmp_path, program, f"{KEY}", f"{open_key}"))
    assert done.returncode == 1
    assert "mode 0644" in done.stderr
    assert f"chmod 600 {open_key}" in done.stderr
    assert lab.rules(program) == stopped


@pytest.mark.parametrize(
    ("program", "old", "new", "message"),
    [
        ("balancer", "dscp = 1\n", "dscp = 0\n", r"services\[0\]\.dscp"),
        ("balancer", "[[services]]", "[[services", r"line \d+"),
        ("balancer", "weight = 1\n", "wieght = 1\n", "wieght"),
        ("backend1", 'source = "client"', 'source = "server"', r"backends\[0\]\.source"),
        ("backend1", ":80", ":0", r"backends\[0\]\.server"),
    ],
)
def test_bad_configuration(
    lab: Lab, program: str, stopped: list[str], tmp_path: Path, old: str, new: str, message: str
) -> None:
    config = _edited(tmp_path, program, old, new)
    done = _start(lab, program, config)
    assert done.returncode == 2
    assert f"{config}" in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert lab.rules(program) == stopped


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_absent_configuration(lab: Lab, program: str, stopped: list[str], tmp_path: Path) -> None:
    done = _start(lab, program, tmp_path / "absent.toml")
    assert done.returncode == 2
    assert f"{tmp_path}/absent.toml: there is no such file" in done.stderr
    assert lab.rules(program) == stopped


@pytest.mark.parametrize("program", ["balancer"])
def test_host_that_does_not_forward(
    lab: Lab, program: str, stopped: list[str], tmp_path: Path
) -> None:
    with lab.sysctl(program, net_ipv4_ip_forward=0):
        done = _start(lab, program, LAB / "etc" / CONFIGURATIONS[program])
    lab.run(program, "sysctl", "-q", "-p", f"{ROOT}/provisioning/sysctl/balancer.conf")
    assert done.returncode == 1
    assert "sysctl -w net.ipv4.ip_forward=1" in done.stderr
    assert lab.rules(program) == stopped


# --- the lab itself ---


def test_lab_down_leaves_nothing(lab: Lab) -> None:
    pids = [lab.pid(program) for program in CONFIGURATIONS]
    spaces = [os.stat(namespace(host)).st_ino for host in PROGRAMS]
    lab.down()
    try:
        namespaces = subprocess.run(
            ["ip", "netns", "list"], capture_output=True, text=True, timeout=10, check=True
        )
        assert f"{NAME}-" not in namespaces.stdout
        assert [pid for pid in pids if running(pid)] == []
        assert _processes_with(f"{LAB}/etc") == []
        assert not (LAB / "run").exists()
        assert not (LAB / "etc").exists()
        pins = Path("/sys/fs/bpf/l3dsr")
        assert [pin for space in spaces for pin in pins.glob(f"*-{space}")] == []
        assert lab_links() == []
    finally:
        lab.up()
    assert lab.curl("/1k").status == 200


def test_lab_up_twice(lab: Lab) -> None:
    before = {program: lab.pid(program) for program in CONFIGURATIONS}
    lab.up()
    after = {program: lab.pid(program) for program in CONFIGURATIONS}
    assert not set(before.values()) & set(after.values())
    assert [pid for pid in before.values() if running(pid)] == []
    assert sorted(after.values()) == sorted(set(after.values()))
    assert lab.curl("/1k").status == 200


def test_lab_keeps_no_file_of_its_caller_open(lab: Lab, tmp_path: Path) -> None:
    """A lock that the caller holds while it starts the lab is free when the caller has ended."""
    lock = tmp_path / "lock"
    subprocess.run(
        ["flock", lock, SCRIPT, "restart", "nginx-backend1"],
        timeout=60, check=True, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip
    done = subprocess.run(["flock", "--nonblock", lock, "true"], timeout=10, check=False)
    assert done.returncode == 0


def lab_links() -> list[str]:
    """Interfaces of this machine's own that lead to one of the lab's namespaces."""
    links = subprocess.run(
        ["ip", "-o", "link"], capture_output=True, text=True, timeout=10, check=True
    )
    return [line for line in links.stdout.splitlines() if "l3dsr" in line]


def _start(lab: Lab, program: str, config: Path) -> subprocess.CompletedProcess[str]:
    """Start a program that is to end by itself: give it 10 s for that, no more."""
    command = f"{ROOT}/.venv/bin/{COMMANDS[program]}"
    return lab.result(program, "timeout", "10", command, "--config", f"{config}")


def _edited(tmp_path: Path, program: str, old: str, new: str) -> Path:
    """A copy of a program's configuration with one thing changed."""
    text = (LAB / "etc" / CONFIGURATIONS[program]).read_text()
    assert old in text
    config = tmp_path / "config.toml"
    config.write_text(text.replace(old, new))
    return config


def flush_command(program: str) -> list[str]:
    command = "balancer" if program == "balancer" else "packetbridge"
    configuration = LAB / "etc" / CONFIGURATIONS[program]
    return [str(ROOT / ".venv" / "bin" / command), "--config", str(configuration), "flush"]


def flush(lab: Lab, program: str) -> None:
    lab.run(program, *flush_command(program))


def _filters(lab: Lab, host: str) -> list[str]:
    """What of ours there is at tc."""
    shown = [
        lab.run(host, "tc", "filter", "show", "dev", "eth0", side) for side in ("ingress", "egress")
    ]
    lines = "".join(shown).splitlines()
    return [line for line in lines if "l3dsr" in line]


def _queues(lab: Lab, host: str) -> list[str]:
    """Netfilter queues of a host that a program has bound."""
    return lab.run(host, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()


def _processes_with(word: str) -> list[str]:
    """Command lines that mention something."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue  # it has ended meanwhile
        if word in command:
            found.append(command)
    return found
