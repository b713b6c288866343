"""Each prerequisite broken in turn: it is named, and the printed command mends it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.core import config as balancer_config
from balancer.program import startup as balancer_startup
from common.adapters import checks
from common.adapters.checks import Problem
from packetbridge.core import config as bridge_config
from packetbridge.core.config import Backend
from packetbridge.program import startup as bridge_startup
from tests.net.namespace import ROOT, Namespace

pytestmark = pytest.mark.root

READY = (
    "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_fwmark_accept=1"
    " net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0"
    " net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0"
)
WITHOUT_VIP = (  # the other address went with it, as the secondary one
    "ip address delete 192.168.33.10/24 dev eth0 && ip address add 192.168.33.20/24 dev eth0"
)
BIND_QUEUE = """
import signal, netfilterqueue
queue = netfilterqueue.NetfilterQueue()
queue.bind({number}, print)
print("bound", flush=True)
signal.pause()
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    created = Namespace("startup")
    created.shell("ip address add 192.168.33.20/24 dev eth0 && " + READY)
    yield created
    created.delete()


class Host:
    """A program's configuration on a host; both are right until a test breaks something."""

    def __init__(self, namespace: Namespace, key: Path) -> None:
        self.namespace = namespace

    def problems(self) -> list[Problem]:
        raise NotImplementedError

    def breaks(self, command: str, named: str, fatal: bool = True) -> Problem:
        """After the command there is one problem, it is named so, and its cure is one."""
        assert self.problems() == []
        self.namespace.shell(command)
        return self.mends(named, fatal)

    def mends(self, named: str, fatal: bool = True) -> Problem:
        (problem,) = self.problems()
        assert named in problem.what
        assert problem.fatal == fatal
        self.namespace.shell(_commands_as_here(problem.mend))
        assert self.problems() == []
        return problem


def _commands_as_here(mend: str) -> str:
    """A printed command; ours are run from this tree, whether or not they are installed."""
    # The copy from another host is a new key here: nothing in these tests compares the two.
    mend = re.sub(r"^copy (.+) from the balancer's host$", r"rm -f \1 && balancer keygen \1", mend)
    here = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -c"
    code = shlex.quote("from balancer.program.cli import main; main()")
    return mend.replace("balancer keygen", f"{here} {code} keygen")


class BalancerHost(Host):
    def __init__(self, namespace: Namespace, key: Path) -> None:
        super().__init__(namespace, key)
        config = replace(balancer_config.default(), key_file=str(key))
        self.config = balancer_config.override(config, bridge=("192.168.33.21",))

    def problems(self) -> list[Problem]:
        found = self.namespace.call(balancer_startup.problems, self.config)
        return list(found)


class BridgeHost(Host):
    def __init__(self, namespace: Namespace, key: Path) -> None:
        super().__init__(namespace, key)
        self.config = replace(bridge_config.default(), key_file=str(key))
        self.serve(server_address="192.168.33.10")

    def serve(self, **changes: object) -> None:
        backend = replace(bridge_config.default().backends[0], **changes)  # type: ignore[arg-type]
        self.config = replace(self.config, backends=(backend,))

    def problems(self) -> list[Problem]:
        found = self.namespace.call(bridge_startup.problems, self.config)
        return list(found)


@pytest.fixture
def balancer(namespace: Namespace, key: Path) -> BalancerHost:
    return BalancerHost(namespace, key)


@pytest.fixture
def bridge(namespace: Namespace, key: Path) -> BridgeHost:
    return BridgeHost(namespace, key)


@pytest.fixture(params=[BalancerHost, BridgeHost])
def host(request: pytest.FixtureRequest, namespace: Namespace, key: Path) -> Host:
    made = request.param(namespace, key)
    assert isinstance(made, Host)
    return made


# --- both programs ---


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("rm {key}", "key file {key} does not exist"),
        ("chmod 640 {key}", "key file {key} has mode 0640"),
        ("chown 1000 {key}", "key file {key} belongs to user 1000"),
        ("echo secret > {key}", "key file {key} does not hold one line"),
    ],
)
def test_key_file(host: Host, key: Path, command: str, named: str) -> None:
    host.breaks(command.format(key=key), named.format(key=key))


def test_mtu_too_large_for_a_queue(host: Host) -> None:
    host.breaks("ip link set dev eth0 mtu 9000", "eth0 has MTU 9000")


@pytest.mark.parametrize("where", ["all", "eth0"])
def test_strict_reverse_path_filter_is_a_warning(host: Host, where: str) -> None:
    command = f"sysctl -qw net.ipv4.conf.{where}.rp_filter=1"
    host.breaks(command, "rp_filter is strict on eth0", fatal=False)


def test_loose_reverse_path_filter_outweighs_a_strict_one(host: Host) -> None:
    host.namespace.shell("sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.eth0.rp_filter=1")
    assert host.problems() == []


def test_queue_in_use(host: Host) -> None:
    assert host.problems() == []
    number = host.config.queue  # type: ignore[attr-defined]
    holder = host.namespace.start(BIND_QUEUE.format(number=number))
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "bound\n"
        (problem,) = host.problems()
        assert f"queue {number} is in use by process {holder.pid} (" in problem.what
        host.namespace.shell(problem.mend)
        holder.wait(timeout=10)
        assert host.problems() == []
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_named_interface_must_exist_and_be_up(balancer: BalancerHost) -> None:
    balancer.config = replace(balancer.config, interface="eth9")
    (problem,) = balancer.problems()
    assert problem == Problem(
        "there is no interface eth9", "name one of: eth0, eth1, lo (--interface)"
    )
    balancer.config = replace(balancer.config, interface="eth1")
    quiet = "sysctl -qw net.ipv4.conf.eth1.send_redirects=0 net.ipv4.conf.eth1.rp_filter=0"
    balancer.namespace.shell(quiet)
    balancer.breaks("ip link set dev eth1 down", "interface eth1 is down")


def test_no_iptables(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    (problem,) = checks.firewall([], [])
    assert (problem.what, problem.mend) == (
        "iptables-restore is not installed",
        "apt-get install iptables",
    )


def test_a_kernel_without_a_target(namespace: Namespace) -> None:
    (problem,) = namespace.call(checks.firewall, ["-j NOSUCH"], [])
    assert "the firewall rules cannot be loaded" in problem.what
    assert "NOSUCH" in problem.what
    assert problem.mend.startswith("modprobe ")
    assert "L3DSR" not in namespace.shell("iptables-save -t raw")


def test_the_checks_leave_no_rules_behind(host: Host) -> None:
    host.problems()
    assert "L3DSR" not in host.namespace.shell("iptables-save -t raw")


@pytest.mark.parametrize("program", ["balancer", "packetbridge"])
def test_without_privileges_only_those_are_named(program: str) -> None:
    code = f"from {program}.program import startup; from {program}.core import config\n"
    code += "print(*startup.problems(config.default()), sep='\\n')"
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    what = "must run as root: the privileges CAP_NET_RAW are missing"
    problem = Problem(what, f"sudo {program}")
    assert done.stdout == f"{problem}\n"


# --- the balancer ---


def test_vip_that_no_interface_holds(balancer: BalancerHost) -> None:
    balancer.breaks(WITHOUT_VIP, "the VIP 192.168.33.10")


def test_vip_may_be_routed_to_a_named_interface(balancer: BalancerHost) -> None:
    balancer.config = replace(balancer.config, interface="eth0")
    balancer.breaks(WITHOUT_VIP, "the VIP 192.168.33.10", fatal=False)


def test_forwarding_off(balancer: BalancerHost) -> None:
    balancer.breaks("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0")


def test_forwarding_off_for_an_interface(balancer: BalancerHost) -> None:
    setting = "net.ipv4.conf.eth0.forwarding"
    balancer.breaks(f"sysctl -qw {setting}=0", f"{setting} is 0")


@pytest.mark.parametrize("where", ["all", "eth0"])
def test_redirects_on(balancer: BalancerHost, where: str) -> None:
    command = f"sysctl -qw net.ipv4.conf.{where}.send_redirects=1"
    balancer.breaks(command, "send_redirects is on for eth0")


def test_a_missing_vip_does_not_hide_redirects(balancer: BalancerHost) -> None:
    balancer.namespace.shell(
        "ip address flush dev eth0 && sysctl -qw net.ipv4.conf.all.send_redirects=1"
    )
    found = [problem.what for problem in balancer.problems() if problem.fatal]
    assert [what.partition(" for ")[0].partition(": no route")[0] for what in found] == [
        "no interface holds the VIP 192.168.33.10",
        "bridge 192.168.33.21",  # its route went with the address
        "send_redirects is on",
    ]


def test_redirects_of_two_interfaces_are_mended_by_one_command(balancer: BalancerHost) -> None:
    balancer.config = replace(balancer.config, interface="eth1")
    balancer.namespace.shell("ip link set eth1 up && sysctl -qw net.ipv4.conf.eth1.rp_filter=0")
    balancer.namespace.shell("sysctl -qw net.ipv4.conf.all.send_redirects=1")
    balancer.namespace.shell("sysctl -qw net.ipv4.conf.eth1.send_redirects=1")
    balancer.mends("send_redirects is on for eth1, eth0")


def test_no_route_to_a_bridge(balancer: BalancerHost) -> None:
    balancer.config = balancer_config.override(balancer.config, bridge=("10.7.7.7",))
    balancer.mends("bridge 10.7.7.7: no route to 10.7.7.7")


def test_an_interface_with_a_dot_in_its_name(balancer: BalancerHost) -> None:
    balancer.namespace.shell(
        "ip link add eth0.5 type veth peer name eth1.5"
        " && ip link set eth1.5 up && ip link set eth0.5 up"
        " && sysctl -qw net.ipv4.conf.eth0/5.send_redirects=0 net.ipv4.conf.eth0/5.rp_filter=0"
    )
    balancer.config = replace(balancer.config, interface="eth0.5")
    command = "sysctl -qw net.ipv4.conf.eth0/5.rp_filter=1"
    balancer.breaks(command, "rp_filter is strict on eth0.5", fatal=False)


# --- the bridge ---


def test_bridge_address_that_no_interface_holds(bridge: BridgeHost) -> None:
    bridge.breaks("ip address delete 192.168.33.20/24 dev eth0", "the bridge address 192.168.33.20")


def test_no_route_to_a_server_is_fatal(bridge: BridgeHost) -> None:
    bridge.serve(server_address="10.9.9.9")
    bridge.mends("server 10.9.9.9: no route to 10.9.9.9")


def test_marks_are_not_accepted(bridge: BridgeHost) -> None:
    command = "sysctl -qw net.ipv4.tcp_fwmark_accept=0"
    bridge.breaks(command, "net.ipv4.tcp_fwmark_accept is not 1")


def test_marks_and_forwarding_matter_only_where_they_are_used(bridge: BridgeHost) -> None:
    bridge.namespace.shell("sysctl -qw net.ipv4.ip_forward=0")
    assert bridge.problems() == []
    bridge.serve(server_address="192.168.33.30")
    bridge.namespace.shell("sysctl -qw net.ipv4.tcp_fwmark_accept=0")
    bridge.mends("net.ipv4.ip_forward is 0")


def test_the_way_from_a_local_server_to_a_bridge_that_is_its_client(bridge: BridgeHost) -> None:
    bridge.namespace.shell("sysctl -qw net.ipv4.ip_local_reserved_ports=20000-29999")
    bridge.serve(server_address="192.168.33.10", source="bridge")
    bridge.mends("the local route of 192.168.33.20 is on eth0", fatal=False)


def test_ports_of_mode_bridge_are_reserved(bridge: BridgeHost) -> None:
    setting = "net.ipv4.ip_local_reserved_ports"
    bridge.namespace.shell(f"sysctl -qw {setting}=8080")
    assert bridge.problems() == []
    bridge.serve(server_address="192.168.33.30", source="bridge", ports=(5000, 5999))
    bridge.mends(f"{setting} lacks 5000-5999", fatal=False)
    assert bridge.namespace.shell(f"sysctl -n {setting}") == "5000-5999,8080\n"


def test_several_ranges_of_ports_are_reserved_by_one_command(bridge: BridgeHost) -> None:
    bridge.config = replace(
        bridge.config,
        backends=tuple(
            Backend("192.168.33.20", port, "192.168.33.30", 80, source="bridge", ports=ports)
            for port, ports in ((80, (5000, 5999)), (81, (7000, 7001)))
        ),
    )
    bridge.mends("lacks 5000-5999, 7000-7001", fatal=False)


def test_bbr_without_held_handshakes_is_a_warning(bridge: BridgeHost) -> None:
    bridge.namespace.shell("sysctl -qw net.ipv4.tcp_congestion_control=reno")
    bridge.serve(server_address="192.168.33.10", hold_handshake="off")
    command = "ip route add default via 192.168.33.1 congctl bbr mtu 1400"
    problem = bridge.breaks(command, "route 'default via 192.168.33.1", fatal=False)
    assert "uses BBR" in problem.what
    route = bridge.namespace.shell("ip route show default")
    assert "congctl cubic" in route
    assert "mtu 1400" in route
    bridge.serve(server_address="192.168.33.10")
    bridge.namespace.shell("sysctl -qw net.ipv4.tcp_congestion_control=bbr")
    assert bridge.problems() == []


@pytest.mark.parametrize(
    ("usual", "route", "uses"),
    [
        ("reno", "", False),
        ("reno", "congctl bbr", True),
        ("bbr", "", True),
        ("bbr", "congctl cubic", False),
    ],
)
def test_bbr_is_seen_by_default_and_by_route(
    namespace: Namespace, usual: str, route: str, uses: bool
) -> None:
    """And not where each route says otherwise."""
    namespace.shell(f"sysctl -qw net.ipv4.tcp_congestion_control={usual}")
    namespace.shell(f"ip route change 192.168.33.0/24 dev eth0 {route}")
    assert namespace.call(checks.uses_bbr) == uses
