"""Why there was no handshake."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import handing, hosts, refusing
from balancer.program.probe.seen import Seen
from common.adapters.exchange import Failure
from common.program.examination import Line, Verdict

SYNS = ("syn", "fast_syns")  # that were answered, by Python and by the kernel
STEERED = ("syns_steered", "syns_repeated")  # that went on to a server


def causes(seen: Seen) -> Iterator[Line]:
    failure = seen.made.failure
    assert failure is not None
    found = list(elsewhere(seen, failure, seen.made.words))
    yield from found
    if found:
        return
    flow = seen.balancer.flow
    if flow is not None and flow["bridge"] is not None:  # the handshake is its server's
        yield from handing.causes(seen, str(flow["bridge"]))
    elif failure is Failure.REFUSED:
        yield from _refused(seen)
    else:
        yield from _unanswered(seen)


def elsewhere(seen: Seen, failure: Failure, words: str) -> Iterator[Line]:
    """What is wrong before any backend comes into it: here, on the way to the VIP, or there."""
    vip = seen.wanted.vip
    if failure is Failure.NO_ROUTE:
        found = f"has no route to {vip}: {words}"
        yield Line(Verdict.NOT_OK, hosts.HERE, found, f"ip route replace {vip} via ROUTER")
        return
    if failure is Failure.LOCAL:
        yield Line(Verdict.NOT_OK, hosts.HERE, f"does not send: {words}", _RULES_HERE)
        return
    own = list(hosts.filtered(hosts.HERE, seen.own, None))
    yield from own
    if own:
        return
    if seen.balancer.trouble:
        yield _nobody(seen, failure, words)
    elif not seen.balancer.after.get("service"):
        yield _no_service(seen)


_RULES_HERE = "iptables-save -t filter; nft list ruleset"


def _nobody(seen: Seen, failure: Failure, words: str) -> Line:
    """Neither the service nor the balancer's endpoint answers."""
    told, subject, vip = seen.balancer, hosts.balancers(seen.balancer), seen.wanted.vip
    start = f"on the host of {vip}: systemctl start balancer"
    if told.trouble.startswith("the packet process"):
        found = f"it stands still: {told.trouble}"
        return Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}systemctl restart balancer")
    if failure is Failure.REFUSED:
        found = f"the host of {vip} answers, no balancer does: none runs there"
        return Line(Verdict.NOT_OK, subject, found, start)
    if failure is Failure.UNREACHABLE:
        found = f"nobody has {vip} where packets to it are delivered: {words}"
        return Line(Verdict.NOT_OK, subject, found, f"on the balancer's host: ip address; {start}")
    if "refused" in told.trouble:
        found = f"its host is there, its endpoint is not: no balancer runs there ({told.trouble})"
        return Line(Verdict.NOT_OK, subject, found, start)
    found = f"neither {vip} nor its endpoint {told.at} answers: {told.trouble}"
    return Line(Verdict.NOT_OK, subject, found, f"ip route get {vip}; ping {told.address}")


def _refused(seen: Seen) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if told.after.get("draining"):
        found = "it is about to stop, and takes no new connections"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}systemctl restart balancer")
        return
    refused = list(refusing.causes(seen)) if seen.carries == "SYN" else []
    yield from refused
    if not refused:
        found = "it runs, but its host answered in its place: its rules are not in force"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}balancer doctor")


def _unanswered(seen: Seen) -> Iterator[Line]:
    told, subject, source = seen.balancer, hosts.balancers(seen.balancer), seen.made.source
    yield from hosts.towards(subject, told, source, "this client")
    yield from hosts.unsent(subject, told)
    yield from hosts.filtered(subject, told.signs, told)
    counted, done = (STEERED, "steered") if seen.carries == "SYN" else (SYNS, "answered")
    vip, count = seen.wanted.vip, told.grown(counted)
    if count <= 0:
        found = "none of this host's SYNs reached it"
        mend = f"ip route get {vip}; {hosts.on(told)}balancer doctor"
    else:
        found = f"it {done} {count} SYNs meanwhile; none of the answers was taken here"
        mend = f"{hosts.on(told)}ip route get {source} from {vip}; here: iptables-save"
    yield Line(Verdict.NOT_OK, subject, found, mend)


def _no_service(seen: Seen) -> Line:
    wanted = seen.wanted
    kind = "UDP service" if seen.carries == "datagram" else "service"
    found = f"it has no {kind} at {wanted.vip} port {wanted.port}"
    mend = f"{hosts.on(seen.balancer)}balancer check; right would be a [[services]] of that"
    return Line(Verdict.NOT_OK, hosts.balancers(seen.balancer), found, mend)
