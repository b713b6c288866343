"""Why there was no handshake."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import hosts
from balancer.program.probe.seen import Seen
from common.adapters.http_exchange import Failure
from common.program.examination import Line, Verdict

SYNS = ("syn", "fast_syns")  # that were answered, by Python and by the kernel


def causes(seen: Seen) -> Iterator[Line]:
    if seen.failure is Failure.NO_ROUTE:
        found = f"has no route to {seen.vip}: {seen.words}"
        yield Line(Verdict.NOT_OK, hosts.HERE, found, f"ip route replace {seen.vip} via ROUTER")
        return
    if seen.failure is Failure.LOCAL:
        yield Line(Verdict.NOT_OK, hosts.HERE, f"does not send: {seen.words}", _RULES_HERE)
        return
    own = list(hosts.filtered(hosts.HERE, seen.own, None))
    yield from own
    if own:
        return
    if seen.balancer.trouble:
        yield _nobody(seen)
    elif seen.failure is Failure.REFUSED:
        yield from _refused(seen)
    else:
        yield from _unanswered(seen)


_RULES_HERE = "iptables-save -t filter; nft list ruleset"


def _nobody(seen: Seen) -> Line:
    """Neither the service nor the balancer's endpoint answers."""
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    start = f"on the host of {seen.vip}: systemctl start balancer"
    if told.trouble.startswith("the packet process"):
        found = f"it stands still: {told.trouble}"
        return Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}systemctl restart balancer")
    if seen.failure is Failure.REFUSED:
        found = f"the host of {seen.vip} answers, no balancer does: none runs there"
        return Line(Verdict.NOT_OK, subject, found, start)
    if seen.failure is Failure.UNREACHABLE:
        found = f"nobody has {seen.vip} where packets to it are delivered: {seen.words}"
        return Line(Verdict.NOT_OK, subject, found, f"on the balancer's host: ip address; {start}")
    if "refused" in told.trouble:
        found = f"its host is there, its endpoint is not: no balancer runs there ({told.trouble})"
        return Line(Verdict.NOT_OK, subject, found, start)
    found = f"neither {seen.vip} nor its endpoint {told.at} answers: {told.trouble}"
    return Line(Verdict.NOT_OK, subject, found, f"ip route get {seen.vip}; ping {told.address}")


def _refused(seen: Seen) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if not told.after.get("service"):
        yield _no_service(seen)
    elif told.after.get("draining"):
        found = "it is about to stop, and takes no new connections"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}systemctl restart balancer")
    else:
        found = "it runs, but its host answered in its place: its rules are not in force"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}balancer doctor")


def _unanswered(seen: Seen) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if not told.after.get("service"):
        yield _no_service(seen)
        return
    yield from hosts.towards(subject, told, seen.source, "this client")
    yield from hosts.unsent(subject, told)
    yield from hosts.filtered(subject, told.signs, told)
    answered = told.grown(SYNS)
    if answered <= 0:
        found = "none of this host's SYNs reached it"
        mend = f"ip route get {seen.vip}; {hosts.on(told)}balancer doctor"
    else:
        found = f"it answered {answered} SYNs meanwhile; none of the answers was taken here"
        mend = f"{hosts.on(told)}ip route get {seen.source} from {seen.vip}; here: iptables-save"
    yield Line(Verdict.NOT_OK, subject, found, mend)


def _no_service(seen: Seen) -> Line:
    found = f"it has no service at {seen.vip} port {seen.port}"
    mend = f"{hosts.on(seen.balancer)}balancer check; right would be a [[services]] of that"
    return Line(Verdict.NOT_OK, hosts.balancers(seen.balancer), found, mend)
