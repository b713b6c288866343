"""Why a datagram was not answered."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import handing, hosts, refusing, shaking
from balancer.program.probe.seen import Seen
from common.adapters.datagram_exchange import Exchanged
from common.adapters.exchange import Failure
from common.program.examination import Line, Verdict


def causes(seen: Seen, made: Exchanged) -> Iterator[Line]:
    """``made`` has a failure."""
    assert made.failure is not None
    elsewhere = list(shaking.elsewhere(seen, made.failure, made.words))
    yield from elsewhere
    if elsewhere:
        return
    flow = seen.balancer.flow
    if made.failure is Failure.OTHER_SOURCE:
        yield _untranslated(seen, made)
    elif flow is not None:
        yield from handing.causes(seen, str(flow["bridge"]))
    else:
        yield from _unmapped(seen, made.failure)


def _untranslated(seen: Seen, made: Exchanged) -> Line:
    """The server's own address is a stranger's to the client."""
    flow = seen.balancer.flow
    bridge = None if flow is None else seen.bridges.get(str(flow["bridge"]))
    found = f"the answer came as from {', '.join(made.others)}: it has not passed the bridge"
    if bridge is None:
        return Line(Verdict.NOT_OK, hosts.balancers(seen.balancer), found)
    mend = f"{hosts.on(bridge)}packetbridge doctor; ip route get {seen.made.source}"
    return Line(Verdict.NOT_OK, hosts.bridges(bridge), found, mend)


def _unmapped(seen: Seen, failure: Failure) -> Iterator[Line]:
    """The balancer knows no such client."""
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    refused = list(refusing.causes(seen))
    yield from refused or hosts.filtered(subject, told.signs, told)
    if refused:
        return
    if failure is Failure.REFUSED:
        found = "it runs, but its host answered in its place: its rules are not in force"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}balancer doctor")
        return
    drops = told.drops(REASONS)
    found = f"it knows no datagram of {seen.made.client}" + (f" ({drops})" if drops else "")
    mend = f"ip route get {seen.wanted.vip}; {hosts.on(told)}balancer doctor"
    yield Line(Verdict.NOT_OK, subject, f"{found}: it did not arrive", mend)


# Why the balancer drops a datagram.
REASONS = (
    "datagram_too_large",
    "fragment",
    "bad_udp_checksum",
    "bad_udp_length",
    "zero_port",
    "mappings_evicted",
    "internal_error",
    "kernel_queue_lost",
    "kernel_datagram_queue_lost",
)
