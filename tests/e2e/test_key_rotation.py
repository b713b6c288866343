"""The shared key is replaced while connections are made: by the documented commands, in any order
of the hosts, with restarts between, and with files that are no good."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import CONFIGURATIONS, LAB, PROGRAMS, ROOT, Answer, Lab, until
from tests.e2e.load import download, load
from tests.soak import Amount

pytestmark = pytest.mark.root

STEPS = ("--add", "--switch", "--drop")
MASTER = LAB / "etc" / "key"  # the operator's, which is copied to each host's own
ORDERS = list(itertools.permutations(PROGRAMS))


class Hosts:
    """Each host with a key file of its own, and what an operator does with them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @staticmethod
    def file(program: str) -> Path:
        return LAB / "etc" / f"key-{program}"

    def keygen(self, *step: str) -> None:
        command = [ROOT / ".venv" / "bin" / "balancer", "keygen", *step, MASTER]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr

    def copy(self, program: str) -> None:
        shutil.copy(MASTER, self.file(program))

    def tell(self, program: str) -> str:
        """SIGHUP; what the program says to it."""
        start = self._lab.log_end(program)
        os.kill(self._lab.pid(program), signal.SIGHUP)
        heard = r"SIGHUP: (keys: .*|mend: .*)\n"
        until(lambda: re.search(heard, self._lab.log(program, start)), 5, f"{program} reads it")
        return self._lab.log(program, start)

    def update(self, program: str) -> None:
        """Copy and tell."""
        self.copy(program)
        assert "SIGHUP: keys: " in self.tell(program)


@pytest.fixture(scope="module")
def rotating(running_lab: Lab) -> Iterator[Lab]:
    """The lab, each program with a copy of the key."""

    def own(program: str) -> Callable[[str], str]:
        return lambda text: text.replace(f'"{MASTER}"', f'"{Hosts.file(program)}"')

    before = MASTER.read_text()
    for program in PROGRAMS:
        shutil.copy(MASTER, Hosts.file(program))
    try:
        with running_lab.configured(**{program: own(program) for program in PROGRAMS}):
            yield running_lab
            MASTER.write_text(before)
    finally:
        MASTER.write_text(before)
        for program in PROGRAMS:
            Hosts.file(program).unlink()


@pytest.fixture
def hosts(rotating: Lab, lab: Lab) -> Iterator[Hosts]:
    """Afterwards all programs hold one key, the master's, and no other but in retirement."""
    hosts = Hosts(lab)
    yield hosts
    if len(MASTER.read_text().split()) == 2:
        hosts.keygen("--drop")
    for program in PROGRAMS:
        hosts.update(program)


class Unbelieved:
    """What the programs have dropped for a wrong key or time since this was made."""

    def __init__(self, lab: Lab) -> None:
        self._growths = {program: lab.growth(program) for program in PROGRAMS}

    def packets(self) -> int:
        names = ("bad_handoff_mac", "bad_answer_mac", "old_handoff_epoch", "unknown_flow_reset")
        return sum(growth(name) for growth in self._growths.values() for name in names)


def served_by_both(lab: Lab) -> None:
    answers = [lab.curl(f"/small/{number}", timeout=10) for number in range(1, 9)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.backend for answer in answers} == {"backend1", "backend2"}


def test_the_documented_steps_lose_no_request(
    lab: Lab, hosts: Hosts, amount: Amount, report: Callable[[str], None]
) -> None:
    """Each step's hosts are told one by one in all orders, some requests being made in between."""
    first, *others = ORDERS
    orders = amount([first, tuple(reversed(first))], ORDERS * 3)
    unbelieved = Unbelieved(lab)
    keys = {MASTER.read_text()}
    file, rate = amount(("20m", "2M"), ("100m", "500k"))
    with download(lab, file, rate) as whole, load(lab) as requests:
        for number, order in enumerate(orders):
            for step, hosts_told in zip(STEPS, (order, *others[number % 4 :][:2]), strict=True):
                hosts.keygen(step)
                for program in hosts_told:
                    hosts.update(program)
                    requests.goes_on(amount(10, 50))
            keys.add(MASTER.read_text())
            amount.progress(number + 1, len(orders))
        whole.arrives(200)
    assert requests.tally.failures == []
    assert unbelieved.packets() == 0
    assert len(keys) == len(orders) + 1, "the key is the one before"
    report(
        f"{len(orders)} keys replaced on three hosts one by one: {len(requests.tally.seconds)} "
        f"requests without a failure, slowest {requests.tally.slowest * 1000:.0f} ms"
    )


def test_a_new_key_is_taken_by_the_bridges_first(lab: Lab, hosts: Hosts) -> None:
    """One line replaced by another, which is not the documented way: safe in this order, as the key
    before is accepted for five minutes more."""
    unbelieved = Unbelieved(lab)
    MASTER.unlink()
    hosts.keygen()
    with load(lab) as requests:
        for program in ("backend1", "backend2", "balancer"):
            hosts.update(program)
            requests.goes_on(10)
    assert requests.tally.failures == []
    assert unbelieved.packets() == 0


def test_a_balancer_ahead_of_its_bridges_is_named_and_waits_for_them(
    lab: Lab, hosts: Hosts
) -> None:
    """The mistake: a key signs that the bridges do not know. Nothing is lost if they are told while
    clients still repeat their requests."""
    bridges = ("backend1", "backend2")
    starts = {program: lab.log_end(program) for program in PROGRAMS}
    dropped = [lab.growth(program) for program in bridges]
    MASTER.unlink()
    hosts.keygen()
    for program in PROGRAMS:
        hosts.copy(program)
    hosts.tell("balancer")
    answers: list[Answer] = []

    def ask() -> None:
        answers.append(lab.curl("/1k", timeout=20))

    client = threading.Thread(target=ask)
    client.start()
    until(lambda: sum(growth("bad_handoff_mac") for growth in dropped) >= 3, 10, "dropped by name")
    logs = "".join(lab.log(program, starts[program]) for program in bridges)
    assert "handoffs with a wrong MAC: forged, or the balancer has another key" in logs
    until(
        lambda: "does not answer" in lab.log("balancer", starts["balancer"]), 10, "named there too"
    )
    for program in bridges:
        hosts.tell(program)
    client.join(25)
    assert [answer.status for answer in answers] == [200]


@pytest.mark.parametrize("step", STEPS)
def test_restarts_in_the_middle_of_a_step(lab: Lab, hosts: Hosts, step: str) -> None:
    """A restarted program knows no other keys than its file's: those suffice at each step."""
    for done in STEPS[: STEPS.index(step)]:
        hosts.keygen(done)
        for program in PROGRAMS:
            hosts.update(program)
    hosts.keygen(step)
    hosts.copy("backend1")
    lab.script("restart", "backend1")
    unbelieved = Unbelieved(lab)
    served_by_both(lab)
    assert unbelieved.packets() == 0
    hosts.copy("balancer")
    lab.script("restart", "balancer")
    unbelieved = Unbelieved(lab)
    served_by_both(lab)
    assert unbelieved.packets() == 0


# --- files that are no good ---


def _missing(file: Path) -> str:
    file.unlink()
    return f"key file {file} does not exist"


def _unsafe(file: Path) -> str:
    file.chmod(0o644)
    return f"key file {file} has mode 0644"


def _cut_off(file: Path) -> str:
    file.write_text(file.read_text()[:31])
    return f"key file {file} does not hold one line"


def _empty(file: Path) -> str:
    file.write_text("")
    return f"key file {file} does not hold one line"


@pytest.mark.parametrize("spoil", [_missing, _unsafe, _cut_off, _empty])
@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_a_file_that_is_no_good_changes_nothing(
    lab: Lab, hosts: Hosts, program: str, spoil: Callable[[Path], str]
) -> None:
    file, refused = hosts.file(program), lab.growth(program)
    mode = file.stat().st_mode & 0o777
    what = spoil(file)
    said = hosts.tell(program)
    assert f"WARNING SIGHUP: the keys stay as they are, as the {what}" in said
    cure = f"chmod 600 {file}" if spoil is _unsafe else f"copy {file} from a host that has"
    assert f"WARNING SIGHUP: mend: {cure}" in said
    assert refused("key_file_refused") == 1
    unbelieved = Unbelieved(lab)
    served_by_both(lab)
    assert unbelieved.packets() == 0
    file.unlink(missing_ok=True)
    shutil.copy(MASTER, file)
    assert file.stat().st_mode & 0o777 == mode
    assert "for 300 s more" not in hosts.tell(program), "the same key again retires none"


def test_sighup_while_a_program_starts_is_heeded_later(lab: Lab, hosts: Hosts) -> None:
    """It would end a program that has no answer to it yet, and systemd takes that for an end on
    purpose."""
    lab.script("stop", "balancer")
    command = lab.command("balancer", f"{ROOT}/.venv/bin/balancer", "--config")
    config = LAB / "etc" / CONFIGURATIONS["balancer"]
    try:
        with subprocess.Popen([*command, config], stderr=subprocess.PIPE, text=True) as program:
            until(lambda: _blocks(program.pid, signal.SIGHUP), 10, "it has begun")
            program.send_signal(signal.SIGHUP)
            assert program.stderr is not None
            lines = list(itertools.takewhile(lambda line: " ready: " not in line, program.stderr))
            heard = program.stderr.readline()
            program.terminate()
            lines += [heard, *program.stderr]
        assert program.returncode == 0
        assert any("SIGHUP: keys: " in line for line in lines)
    finally:
        lab.script("start", "balancer")


def _blocks(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"SigBlk:\s*(\w+)", status)
    return bool(int(mask, 16) >> number - 1 & 1)
