"""`doctor` in the lab: what only shows from outside, or beside programs that run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from balancer.program.fast_path import OBJECT
from tests.e2e.clock import LIBRARY, Clocks, settable_clocks
from tests.e2e.doctors import Doctor
from tests.e2e.firewalls import firewall, web_rules
from tests.e2e.lab import BRIDGE1, BRIDGE2, SERVER1, SERVER2, VIP, Lab

pytestmark = pytest.mark.root

BACKENDS = {"backend1": (BRIDGE1, SERVER1), "backend2": (BRIDGE2, SERVER2)}
WAY, BRIDGE, CLOCK = f"DSCP 1 to {BRIDGE1}", f"bridge {BRIDGE1}", f"clock of {BRIDGE1}"


@contextmanager
def restored(lab: Lab, host: str, table: str) -> Iterator[None]:
    """The host's table as it was, afterwards."""
    before = lab.run(host, "iptables-save", "-t", table)
    try:
        yield
    finally:
        command = lab.command(host, "iptables-restore", "-T", table)
        subprocess.run(command, input=before, text=True, check=True, timeout=20)


def test_a_lab_that_is_well(lab: Lab) -> None:
    """And whoever asks disturbs nobody."""
    told, dropped = lab.growth("backend1"), lab.growth("balancer")
    for host, verdicts in (("balancer", {"ok"}), ("backend1", {"ok", "not judged"})):
        lines = Doctor(lab, host, "--datapath", "ebpf").lines()
        assert {line["verdict"] for line in lines} == verdicts
    assert told("clock_told") == 1
    assert dropped("answer_for_unknown_flow") == len(BACKENDS)
    assert lab.curl("/1k").status == 200


# --- the way to the bridges ---


def test_rules_that_this_host_has_besides(lab: Lab) -> None:
    """One changes the DSCP, which both the copy of the rules and the way itself show; one is before
    ours."""
    with restored(lab, "balancer", "mangle"), before_ours(lab, "balancer"):
        change = f"-t mangle -A POSTROUTING -d {BRIDGE1} -j DSCP --set-dscp 0"
        lab.run("balancer", "iptables", *change.split())
        said = Doctor(lab, "balancer").mends(WAY, "other rules", "rules in place")
    assert said[-1]["found"].startswith("arrives as 0")


def test_a_bridge_that_is_not_there(lab: Lab) -> None:
    """Its host tells that the DSCP arrives all the same."""
    doctor = Doctor(lab, "balancer")
    lab.script("stop", "backend1")
    try:
        lines = {line["subject"]: line for line in doctor.lines()}
        assert (lines[WAY]["verdict"], lines[CLOCK]["verdict"]) == ("ok", "not judged")
        assert lines[BRIDGE]["verdict"] == "not ok"
        assert lines[BRIDGE]["mend"] == f"on {BRIDGE1}: packetbridge doctor"
    finally:
        lab.script("start", "backend1")
    assert doctor.ailing() == []


@pytest.fixture
def clocks(lab: Lab) -> Iterator[Clocks]:
    with settable_clocks(lab) as made:
        yield made
        made.file("doctor").unlink(missing_ok=True)


def test_clocks_that_differ(lab: Lab, clocks: Clocks) -> None:
    """The clock is set by the test: the machine's own, which the printed command would have set, is
    right."""
    own = ("env", f"LD_PRELOAD={LIBRARY}", f"CLOCK_OFFSET={clocks.file('doctor')}")
    doctor = Doctor(lab, "balancer")
    for seconds, way in ((100_000, "behind"), (-9, "ahead of")):
        clocks.write(seconds, "doctor")
        one, other = doctor.ailing(*own)
        assert one["subject"] == CLOCK
        assert re.match(rf"{abs(seconds)}\.[01] s {way} this host's", one["found"])
        assert (one["mend"], other["mend"]) == ("timedatectl set-ntp true",) * 2
    clocks.write(7, "doctor")
    assert doctor.ailing(*own) == []


# --- firewalls ---


@pytest.mark.parametrize("host", ["balancer", "backend1"])
def test_a_firewall_that_lets_pass_what_the_readme_says(lab: Lab, host: str) -> None:
    with firewall(lab, host, web_rules(VIP, BACKENDS)[host]):
        assert Doctor(lab, host).ailing() == []


def test_firewalls_that_let_nothing_pass(lab: Lab) -> None:
    """The printed rules are all that it takes to serve."""
    with firewall(lab, "balancer", ""), firewall(lab, "backend1", ""):
        Doctor(lab, "backend1").mends("other rules")
        ways = [f"DSCP 1 to {bridge}" for bridge, _ in BACKENDS.values()]
        Doctor(lab, "balancer").mends("other rules", *ways)
        assert {lab.curl(f"/small/{number}").backend for number in range(1, 9)} == set(BACKENDS)


def test_a_table_of_nftables_own(lab: Lab) -> None:
    """Tried like iptables' own; the rule is not named."""
    rules = "add table inet strict; add chain inet strict in "
    rules += "{ type filter hook input priority 0; policy drop; }"
    lab.run("backend1", "nft", rules)
    try:
        ailing = Doctor(lab, "backend1").ailing()
    finally:
        lab.run("backend1", "nft", "delete", "table", "inet", "strict")
    assert {line["subject"] for line in ailing} == {"other rules"}
    assert "by a table of nftables' own" in ailing[0]["found"]


@contextmanager
def before_ours(lab: Lab, host: str) -> Iterator[None]:
    """A rule of somebody's before ours."""
    rule = ("PREROUTING", "-p", "udp", "-j", "ACCEPT")
    lab.run(host, "iptables", "-t", "raw", "-I", rule[0], "1", *rule[1:])
    try:
        yield
    finally:
        lab.run(host, "iptables", "-t", "raw", "-D", *rule)


def test_rules_and_filters_that_somebody_flushed(lab: Lab) -> None:
    """A restart mends it; what is printed is systemd's, which the lab has not."""
    doctor, flushed = Doctor(lab, "balancer"), ["rules in place"]
    lab.run("balancer", "iptables", "-t", "raw", "-F")
    if lab.in_kernel:
        lab.run("balancer", "tc", "qdisc", "delete", "dev", "eth0", "clsact")
        flushed.append("filters in place")
    try:
        ailing = doctor.ailing()
        assert [line["subject"] for line in ailing] == flushed
        assert "L3DSR-balancer-IN and L3DSR-balancer-OUT of the raw table" in ailing[0]["found"]
        assert {line["mend"] for line in ailing} == {"systemctl restart balancer"}
    finally:
        lab.script("restart", "balancer")
    assert doctor.ailing() == []


# --- the kernel's path ---


@pytest.fixture
def mounts() -> Iterator[Sequence[str]]:
    """A mount namespace of the test's own, as the beginning of a command in it."""
    own = ["unshare", "--mount", "--propagation", "private", "cat"]
    with subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"in it\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"in it\n"
        yield ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--")
        holder.stdin.close()


def test_no_bpf_file_system_and_no_compiled_programs(lab: Lab, mounts: Sequence[str]) -> None:
    lab.run("balancer", *mounts, "umount", "--lazy", "/sys/fs/bpf")
    aside = OBJECT.with_suffix(".aside")
    OBJECT.rename(aside)
    try:
        Doctor(lab, "balancer", "--datapath", "ebpf").mends("bpffs", "eBPF programs", before=mounts)
    finally:
        aside.replace(OBJECT)


def test_no_libbpf(lab: Lab, mounts: Sequence[str]) -> None:
    """Its package is there, so that to install it would mend nothing."""
    cache = lab.run("balancer", "ldconfig", "-p").splitlines()
    (library, *_) = [line.split()[-1] for line in cache if "libbpf.so.1 " in line]
    lab.run("balancer", *mounts, "mount", "--bind", "/dev/null", library)
    ailing = Doctor(lab, "balancer", "--datapath", "auto").ailing(*mounts)
    assert {line["subject"] for line in ailing} == {"libbpf", "eBPF programs"}
    assert {line["verdict"] for line in ailing} == {"warning"}
    assert ailing[0]["mend"] == "apt-get install libbpf1"


def test_programs_that_the_kernel_refuses(lab: Lab, mounts: Sequence[str]) -> None:
    lab.run("balancer", *mounts, "mount", "--bind", "/dev/null", str(OBJECT))
    (line,) = Doctor(lab, "balancer", "--datapath", "ebpf").ailing(*mounts)
    assert (line["subject"], line["verdict"]) == ("eBPF programs", "not ok")
    assert line["mend"] == "choose nfqueue (--datapath)"
    assert Doctor(lab, "balancer", "--datapath", "nfqueue").ailing(*mounts) == []


def test_a_container_that_allows_no_namespace(lab: Lab) -> None:
    without = ("setpriv", "--bounding-set", "-sys_admin")
    ailing = Doctor(lab, "balancer", "--datapath", "ebpf").ailing(*without)
    assert {line["subject"] for line in ailing} == {"eBPF programs", "other rules"}
    assert {line["verdict"] for line in ailing} == {"warning"}
    assert all("could not be tried: " in line["found"] for line in ailing)
