"""Our chains come and go in one step, and other people's rules stay as they are."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from balancer.core import config as balancer_config
from balancer.core import rules as balancer_rules
from common.adapters import firewall
from common.adapters.firewall import Firewall, FirewallError, NotInstalled
from packetbridge.core import config as bridge_config
from packetbridge.core import rules as bridge_rules
from packetbridge.core.config import Backend
from tests.net.namespace import Namespace

pytestmark = pytest.mark.root

OTHERS = """
{command} -t raw -N L3DSR-fence
{command} -t raw -A PREROUTING -p udp --dport 53 -m comment --comment 'my own' -j CT --notrack
{command} -t raw -A PREROUTING -j L3DSR-fence
{command} -t raw -A L3DSR-fence -s 10.9.9.9 -j DROP
{command} -t raw -P OUTPUT ACCEPT
{command} -A INPUT -p tcp --dport 22 -j ACCEPT
"""
PREROUTING = ["-d 10.0.0.1 -p tcp --dport 80 -j CT --notrack", "-d 10.0.0.1 -j NFQUEUE"]
OUTPUT = ["-s 10.0.0.1 -j CT --notrack"]


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    created = Namespace("firewall")
    yield created
    created.delete()


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def command(request: pytest.FixtureRequest, namespace: Namespace) -> Iterator[str]:
    """Each kind of iptables, beside rules of somebody else."""
    name = str(request.param)
    namespace.shell(OTHERS.format(command=name))
    yield name
    namespace.shell(f"{name} -t raw -F && {name} -t raw -X && {name} -F")


class Host:
    def __init__(self, namespace: Namespace, command: str) -> None:
        self.namespace, self.command = namespace, command

    def rules(self) -> list[str]:
        """All rules and chains, the counters and the time of printing left out."""
        saved = self.namespace.shell(f"{self.command}-save -t raw; {self.command}-save -t filter")
        lines = (line.split(" [")[0] for line in saved.splitlines())
        return [line for line in lines if not line.startswith("#")]

    def install(self, instance: str = "t-1", prerouting: list[str] = PREROUTING) -> None:
        self.namespace.call(Firewall.install, self._firewall(instance, prerouting))

    def remove(self, instance: str = "t-1") -> None:
        self.namespace.call(Firewall.remove, self._firewall(instance, []))

    def probe(self, prerouting: list[str], output: list[str]) -> None:
        firewall = Firewall("t-1", prerouting, output, self.command)
        self.namespace.call(Firewall.probe, firewall)

    def _firewall(self, instance: str, prerouting: list[str]) -> Firewall:
        return Firewall(instance, prerouting, OUTPUT, self.command)


@pytest.fixture
def host(namespace: Namespace, command: str) -> Host:
    return Host(namespace, command)


def test_installed_first_and_removed_without_a_trace(host: Host) -> None:
    before = host.rules()
    host.install()
    during = host.rules()
    assert [line for line in during if "t-1" not in line] == before
    hooked = [line for line in during if line.startswith("-A PREROUTING")]
    assert hooked[0] == "-A PREROUTING -j L3DSR-t-1-IN"
    assert "-A OUTPUT -j L3DSR-t-1-OUT" in during
    assert sum(line.startswith("-A L3DSR-t-1-IN ") for line in during) == len(PREROUTING)
    host.remove()
    assert host.rules() == before
    host.remove()
    assert host.rules() == before


def test_leftovers_of_a_crash_are_replaced(host: Host) -> None:
    before = host.rules()
    host.install(prerouting=[*PREROUTING, "-d 10.0.0.2 -j DROP"])
    host.namespace.shell(f"{host.command} -t raw -I PREROUTING -j L3DSR-t-1-IN")
    host.install()
    during = host.rules()
    assert sum(line == "-A PREROUTING -j L3DSR-t-1-IN" for line in during) == 1
    assert not any("10.0.0.2" in line for line in during)
    host.remove()
    assert host.rules() == before


def test_a_half_removed_leftover_is_removed(host: Host) -> None:
    before = host.rules()
    host.install()
    host.namespace.shell(f"{host.command} -t raw -D PREROUTING -j L3DSR-t-1-IN")
    host.namespace.shell(f"{host.command} -t raw -F L3DSR-t-1-OUT")
    host.remove()
    assert host.rules() == before


def test_instances_are_apart(host: Host) -> None:
    before = host.rules()
    host.install("t-1")
    one = host.rules()
    host.install("t-10")
    host.remove("t-10")
    assert host.rules() == one
    host.remove("t-1")
    assert host.rules() == before


def test_a_rule_that_fails_changes_nothing(host: Host) -> None:
    host.install()
    before = host.rules()
    with pytest.raises(AssertionError, match=r"FirewallError.*NOSUCH"):
        host.install(prerouting=["-d 10.0.0.3 -j DROP", "-j NOSUCH"])
    assert host.rules() == before
    host.remove()


def test_a_chain_that_others_use_is_not_torn_out(host: Host) -> None:
    host.install()
    host.namespace.shell(f"{host.command} -t raw -A L3DSR-fence -j L3DSR-t-1-IN")
    before = host.rules()
    with pytest.raises(AssertionError, match=r"FirewallError"):
        host.remove()
    assert host.rules() == before


@pytest.mark.parametrize("local", [(), ("192.168.33.30",)])
def test_the_programs_own_rules_load(host: Host, local: tuple[str, ...]) -> None:
    before = host.rules()
    host.probe(*balancer_rules.rules(balancer_config.default()))
    config = bridge_config.default()
    second = Backend("192.168.33.20", 81, "10.0.0.9", 80, source="bridge")
    config = replace(config, backends=(*config.backends, second))
    host.probe(*bridge_rules.rules(config, local))
    assert host.rules() == before


def test_a_host_without_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(NotInstalled, match=r"^iptables-save is not installed$"):
        Firewall("t-1", [], []).install()


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, firewall.TIMEOUT)

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(FirewallError, match="timed out after 15 seconds"):
        Firewall("t-1", [], []).remove()


@pytest.mark.parametrize("instance", ["", "a b", "x" * 19, "ü", "a\n"])
def test_names_that_cannot_be_a_chains(instance: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a chain's name"):
        Firewall(instance, [], [])
