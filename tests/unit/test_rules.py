"""Which packets each program takes from the kernel, as rules."""

from dataclasses import replace

import pytest

from balancer.core import config as balancer_config
from balancer.core import rules as balancer_rules
from packetbridge.core import config as bridge_config
from packetbridge.core import rules as bridge_rules
from packetbridge.core.config import Backend, Balancer

QUEUE = " -j NFQUEUE --queue-num "
NOTRACK = " -j CT --notrack"
BRIDGE, SERVER = "192.168.33.20", "192.168.33.30"
MARKED = "-m mark --mark 0x4c330000/0xffffff00"


def queued(rules: list[str]) -> list[str]:
    return [rule.partition(QUEUE)[0] for rule in rules if QUEUE in rule]


def untracked(rules: list[str]) -> list[str]:
    return [rule.removesuffix(NOTRACK) for rule in rules if rule.endswith(NOTRACK)]


def bridge(*backends: Backend, local: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    config = replace(bridge_config.default(), backends=backends)
    return bridge_rules.rules(config, local)


def icmp(match: str) -> list[str]:
    return [f"{match} -p icmp --icmp-type {kind}" for kind in (3, 11, 12)]


def test_balancer_takes_the_service_and_icmp_errors() -> None:
    prerouting, output = balancer_rules.rules(balancer_config.default())
    service = "-d 192.168.33.10 -p tcp --dport 80"
    vip = [service, *icmp("-d 192.168.33.10")]
    own = "-m mark --mark 0x4c340000"
    assert queued(prerouting) == [f"{service} --syn", *vip]
    assert untracked(prerouting) == [*vip, own]
    assert queued(output) == []
    assert untracked(output) == ["-s 192.168.33.10 -p tcp --sport 80", own]


def test_syns_have_a_queue_of_their_own() -> None:
    config = balancer_config.default()
    syns, rest = [
        rule for rule in balancer_rules.rules(config)[0] if " tcp " in rule and QUEUE in rule
    ]
    assert syns.endswith(f" --syn{QUEUE}{config.syn_queue}")
    assert rest.endswith(f"{QUEUE}{config.queue}")
    assert config.syn_queue != config.queue


def test_datagrams_have_a_queue_of_their_own_and_so_have_their_fragments() -> None:
    config = balancer_config.default()
    second = replace(config.services[0], name="dns", port=53, protocol="udp", inspect="none")
    both = replace(config, services=(*config.services, second))
    prerouting, output = balancer_rules.rules(both)
    vip = "-d 192.168.33.10 -p udp"
    udp = [f"{vip} --dport 53", f"{vip} --fragment"]
    assert [rule for rule in prerouting if " udp " in rule and QUEUE in rule] == [
        f"{match}{QUEUE}{config.queue + 2}" for match in udp
    ]
    assert set(udp) <= set(untracked(prerouting))
    assert (queued(output), output) == ([], balancer_rules.rules(config)[1])
    alone, _ = balancer_rules.rules(replace(config, services=(second,)))
    assert queued(alone) == [*icmp("-d 192.168.33.10"), *udp]


def test_services_of_one_vip_share_its_icmp_rules() -> None:
    config = balancer_config.default()
    second = replace(config.services[0], name="tls", port=443)
    prerouting, _ = balancer_rules.rules(replace(config, services=(*config.services, second)))
    assert len(queued(prerouting)) == 2 * 2 + 3
    assert len(set(prerouting)) == len(prerouting)


def test_bridge_with_a_local_server_queues_its_marked_packets_and_resets() -> None:
    prerouting, output = bridge(bridge_config.default().backends[0], local=(SERVER,))
    steered = f"-d {BRIDGE} -m dscp --dscp 1"
    assert queued(prerouting) == [f"{steered} -p tcp --dport 80", *icmp(steered)]
    assert untracked(prerouting) == queued(prerouting)
    server = f"-s {SERVER} -p tcp --sport 80"
    assert queued(output) == [f"{server} {MARKED}", f"{server} --tcp-flags RST RST"]
    assert untracked(output) == [MARKED, "-s 192.168.33.10 -p tcp --sport 80"]


def test_the_kernel_is_left_what_leaves_by_its_interfaces_and_is_not_unusual() -> None:
    config, kernel = bridge_config.default(), bridge_rules.Kernel("/pin", ["eth0", "eth1"])
    prerouting, output = bridge_rules.rules(config, {SERVER}, kernel)
    assert prerouting[:2] == [f"{MARKED} -j CT --notrack", f"{MARKED} -j RETURN"]
    server = f"-s {SERVER} -p tcp --sport 80"
    assert output[2:] == [
        f"{server} {MARKED} -m bpf --object-pinned /pin{QUEUE}{config.queue}",
        f"{server} --tcp-flags RST RST{QUEUE}{config.queue}",
        "-o eth0 -j RETURN",
        "-o eth1 -j RETURN",
        f"{server} {MARKED}{QUEUE}{config.queue}",
    ]


def test_bridge_with_a_remote_server_queues_its_packets_as_they_come_in() -> None:
    prerouting, output = bridge(bridge_config.default().backends[0])
    answers, requests = f"-s {SERVER} -p tcp --sport 80", f"-d {SERVER} -p tcp --dport 80"
    assert queued(prerouting)[4:] == [answers]
    assert untracked(prerouting)[4:] == [answers, requests]
    assert queued(output) == []
    assert requests in untracked(output)


def test_bridge_in_mode_bridge_takes_only_its_own_ports() -> None:
    backend = Backend(BRIDGE, 80, SERVER, 8080, source="bridge", ports=(5000, 5999))
    prerouting, output = bridge(backend)
    answers = f"-s {SERVER} -p tcp --sport 8080 -d {BRIDGE} --dport 5000:5999"
    requests = f"-d {SERVER} -p tcp --dport 8080 -s {BRIDGE} --sport 5000:5999"
    assert queued(prerouting)[4:] == [answers]
    assert untracked(prerouting)[4:] == [answers, requests]
    assert requests in untracked(output)


def test_bridge_has_a_rule_for_each_balancer_a_backend_serves() -> None:
    config = replace(
        bridge_config.default(),
        balancers=tuple(Balancer(dscp, f"10.0.0.{dscp}") for dscp in (1, 2, 3)),
        backends=(
            Backend(BRIDGE, 80, SERVER, 80, dscps=(2,)),
            Backend(BRIDGE, 81, SERVER, 80),
        ),
    )
    prerouting, output = bridge_rules.rules(config, {SERVER})
    tcp = [rule for rule in queued(prerouting) if "tcp" in rule]
    assert tcp == [
        f"-d {BRIDGE} -m dscp --dscp {dscp} -p tcp --dport {port}"
        for dscp, port in ((2, 80), (1, 81), (2, 81), (3, 81))
    ]
    assert "-s 10.0.0.3 -p tcp --sport 80" not in untracked(output)
    assert "-s 10.0.0.3 -p tcp --sport 81" in untracked(output)


DNS = Backend(BRIDGE, 53, SERVER, 5353, protocol="udp", handoff=False)
TO_DNS, FROM_DNS = f"-d {SERVER} -p udp --dport 5353", f"-s {SERVER} -p udp --sport 5353"
UNREACHABLE = f"-s {SERVER} -p icmp --icmp-type 3"


def test_a_local_server_of_datagrams_has_no_mark_to_be_known_by() -> None:
    prerouting, output = bridge(DNS, local=(SERVER,))
    steered = f"-d {BRIDGE} -m dscp --dscp 1"
    assert queued(prerouting) == [f"{steered} -p udp --dport 53", *icmp(steered)]
    assert untracked(prerouting) == [*queued(prerouting), TO_DNS]
    assert queued(output) == [FROM_DNS, UNREACHABLE]
    assert untracked(output) == [MARKED, "-s 192.168.33.10 -p udp --sport 53", FROM_DNS]


def test_a_server_of_both_protocols_has_the_rules_of_both() -> None:
    web = Backend(BRIDGE, 53, SERVER, 5353)
    prerouting, output = bridge(web, DNS, local=(SERVER,))
    steered = f"-d {BRIDGE} -m dscp --dscp 1"
    ends = [f"{steered} -p {protocol} --dport 53" for protocol in ("tcp", "udp")]
    assert queued(prerouting) == [ends[0], *icmp(steered), ends[1]]
    answers = f"-s {SERVER} -p tcp --sport 5353"
    assert queued(output) == [
        f"{answers} {MARKED}", f"{answers} --tcp-flags RST RST", FROM_DNS, UNREACHABLE,
    ]  # fmt: skip


def test_the_kernel_is_asked_for_datagrams_as_well() -> None:
    config = replace(bridge_config.default(), backends=(DNS,))
    _, output = bridge_rules.rules(config, {SERVER}, bridge_rules.Kernel("/pin", ["eth0", "eth1"]))
    assert output[:4] == [
        f"{FROM_DNS} -j CT --notrack",
        f"{FROM_DNS} -m bpf --object-pinned /pin{QUEUE}{config.queue}",
        f"{FROM_DNS} -o eth0 -j RETURN",
        f"{FROM_DNS} -o eth1 -j RETURN",
    ]
    assert output[7:] == [
        f"{UNREACHABLE}{QUEUE}{config.queue}",
        "-o eth0 -j RETURN",
        "-o eth1 -j RETURN",
        f"{FROM_DNS}{QUEUE}{config.queue}",
    ]


@pytest.mark.parametrize("source", ["client", "bridge"])
def test_a_remote_server_of_datagrams_is_queued_as_it_comes_in(source: str) -> None:
    ends, ports = f" -d {BRIDGE} --dport 5000:5999", f" -s {BRIDGE} --sport 5000:5999"
    if source == "client":
        ends = ports = ""
    prerouting, output = bridge(replace(DNS, source=source, ports=(5000, 5999)))
    assert queued(prerouting)[4:] == [FROM_DNS + ends, UNREACHABLE]
    assert untracked(prerouting)[4:] == [FROM_DNS + ends, UNREACHABLE, TO_DNS + ports]
    assert queued(output) == []
    assert TO_DNS + ports in untracked(output)


@pytest.mark.parametrize("local", [(), (SERVER,)])
def test_tracking_is_switched_off_before_queueing_and_no_packet_is_let_by(
    local: tuple[str, ...],
) -> None:
    found = [
        *balancer_rules.rules(balancer_config.default()),
        *bridge(bridge_config.default().backends[0], local=local),
    ]
    for rules in found:
        assert [NOTRACK in rule for rule in rules] == sorted(
            (NOTRACK in rule for rule in rules), reverse=True
        )
        assert "--queue-bypass" not in " ".join(rules)
