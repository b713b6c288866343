"""What this host needs before the balancer can start."""

from balancer.core.config import Config
from balancer.core.rules import rules
from common.adapters import checks
from common.adapters.checks import Problem


def problems(config: Config) -> list[Problem]:
    """Everything that is in the way of a start, or, not fatal, worth knowing."""
    lacking = checks.privileges("balancer")
    if lacking:
        return lacking  # the other checks need them
    found = checks.key(config.key_file, "balancer") + host_problems(config)
    taken = checks.queue(config.queue) + checks.queue(config.syn_queue)
    return found + (taken or checks.alone("balancer"))


def host_problems(config: Config) -> list[Problem]:
    """The same without the key, and what a running program of this configuration would hold."""
    lacking = checks.privileges("balancer")
    if lacking:
        return lacking
    found = checks.queue_library() + checks.losses() + checks.interface(config.interface)
    found += checks.firewall(*rules(config))
    return found + _network(config)


def _network(config: Config) -> list[Problem]:
    vips = list(dict.fromkeys(service.vip for service in config.services))
    bridges = list(dict.fromkeys(b.bridge for s in config.services for b in s.backends))
    names = checks.involved(config.interface, vips, bridges)
    found = [p for vip in vips for p in checks.address("VIP", vip, config.interface)]
    found += [p for bridge in bridges for p in checks.route("bridge", bridge)]
    found += checks.mtu(names) + checks.forwarding(names)
    return found + checks.redirects(names) + checks.reverse_path(names)
