"""What a host's kernel tells of itself: filters, routes, forwarding."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe.seen import Seen, Signs, Told
from common.program.examination import Line, Verdict

HERE = "this host"
# By which a program counts that its host did not send.
NOT_SENT = {
    "send_failed_enetunreach": "no route",
    "send_failed_ehostunreach": "no route, or nobody has the next address",
    "send_failed_enetdown": "the link is down",
    "send_failed_eperm": "its firewall does not let them out",
    "send_failed_other": "see its log",
}


def balancers(told: Told) -> str:
    return f"balancer {told.address}"


def bridges(told: Told) -> str:
    return f"bridge {told.address}"


def on(told: Told | None) -> str:
    """What a command for that host begins with; None: this one."""
    return "" if told is None else f"on {told.address}: "


def filtered(
    subject: str, signs: Signs, where: Told | None, verdict: Verdict = Verdict.NOT_OK
) -> Iterator[Line]:
    """A reverse-path filter that has dropped packets."""
    dropped = signs.by("TcpExt.IPReversePathFilter")
    if dropped > 0:
        strict = f" (rp_filter is strict on {', '.join(signs.strict)})" if signs.strict else ""
        found = f"its reverse-path filter dropped {dropped} packets meanwhile{strict}"
        mend = f"{on(where)}sysctl -w net.ipv4.conf.all.rp_filter=2"
        yield Line(verdict, subject, f"{found}: the way back to their sender is another", mend)


def unsent(subject: str, told: Told) -> Iterator[Line]:
    """What a program's host did not send for it."""
    for name, why in NOT_SENT.items():
        if (count := told.by(name)) > 0:
            found = f"its host did not send {count} packets of the program's: {why} ({name})"
            yield Line(Verdict.NOT_OK, subject, found, f"{on(told)}{_doctor(subject)} doctor")


def _doctor(subject: str) -> str:
    return "balancer" if subject.startswith("balancer") else "packetbridge"


def towards(subject: str, told: Told, address: str, what: str) -> Iterator[Line]:
    """No route from a host to an address."""
    why = told.signs.no_route(address)
    if why:
        found = f"its host has no route to {what} {address}: {why}"
        mend = f"{on(told)}ip route replace {address} via ROUTER"
        yield Line(Verdict.NOT_OK, subject, found, mend)


def forwarding(told: Told) -> Iterator[Line]:
    """A balancer's host that forwards nothing."""
    if not told.signs.forwards and not told.trouble:
        found = "its host forwards nothing, and steered packets are dropped"
        mend = f"{on(told)}sysctl -w net.ipv4.ip_forward=1"
        yield Line(Verdict.NOT_OK, balancers(told), found, mend)


def balancers_way(seen: Seen, bridge: str) -> Iterator[Line]:
    """What of the balancer's host keeps packets from a bridge."""
    told, subject = seen.balancer, balancers(seen.balancer)
    if told.trouble:
        return
    yield from filtered(subject, told.signs, told)
    yield from forwarding(told)
    yield from towards(subject, told, bridge, "the bridge")
    yield from unsent(subject, told)
