"""What this host needs before the balancer can start."""

from functools import partial

from balancer.core.config import Config
from balancer.core.rules import rules
from common.adapters import checks, offloads
from common.adapters.checks import Problem
from common.program import examination
from common.program.examination import Prerequisite


def problems(config: Config) -> list[Problem]:
    """Everything that is in the way of a start, or, not fatal, worth knowing."""
    lacking = checks.privileges("balancer")
    if lacking:
        return lacking  # the other checks need them
    found = checks.key(config.key_file, "balancer") + host_problems(config)
    taken = [problem for number in config.queues.values() for problem in checks.queue(number)]
    return found + (taken or checks.alone("balancer"))


def host_problems(config: Config) -> list[Problem]:
    """The same without the key, and what a running program of this configuration would hold."""
    return checks.privileges("balancer") or examination.problems(prerequisites(config))


def interfaces(config: Config) -> list[str]:
    """By which packets come in or go out."""
    vips = [service.vip for service in config.services]
    bridges = [b.bridge for service in config.services for b in config.backends_of(service)]
    return checks.involved(config.interface, vips, dict.fromkeys(bridges))


def prerequisites(config: Config) -> list[Prerequisite]:
    """What the configuration needs of the host."""
    vips = list(dict.fromkeys(service.vip for service in config.services))
    bridges = list(dict.fromkeys(b.bridge for s in config.services for b in config.backends_of(s)))
    names = interfaces(config)
    where = ", ".join(names)
    return [
        *examination.queues(),
        Prerequisite(
            f"interface {config.interface or where}",
            "is there and up",
            partial(checks.interface, config.interface),
        ),
        Prerequisite(
            "firewall rules",
            "iptables and the kernel take them: NFQUEUE, CT, dscp",
            partial(checks.firewall, *rules(config)),
            root=True,
        ),
        *(
            Prerequisite(
                f"VIP {vip}",
                "is an address of this host's",
                partial(checks.address, "VIP", vip, config.interface),
            )
            for vip in vips
        ),
        *(
            Prerequisite(
                f"bridge {bridge}", "there is a route", partial(checks.route, "bridge", bridge)
            )
            for bridge in bridges
        ),
        Prerequisite(
            "MTU",
            f"of {where}: no packet is larger than the {checks.LARGEST_MTU} bytes of a queue",
            partial(checks.mtu, names),
        ),
        Prerequisite(
            "offloads",
            f"of {where}: no card merges segments for good (LRO)",
            partial(offloads.merged_by_the_card, names),
        ),
        Prerequisite(
            "forwarding",
            "is on: clients' packets are sent on to bridges",
            partial(checks.forwarding, names),
        ),
        Prerequisite(
            "redirects",
            "are off: clients are not told of the bridges",
            partial(checks.redirects, names),
        ),
        Prerequisite(
            "reverse path",
            "is not filtered: clients may be routed elsewhere",
            partial(checks.reverse_path, names),
        ),
    ]
