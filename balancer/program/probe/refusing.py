"""Where the balancer itself gave a client nobody: none of its backends could serve, or a limit was
exceeded."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import handing, hosts
from balancer.program.probe.seen import NOTHING, Seen
from common.program.examination import Line, Verdict

UNSERVED = ("not_served", "udp_no_backend")
OVER_LIMIT = ("over_rate_limit", "udp_over_rate_limit")


def causes(seen: Seen) -> Iterator[Line]:
    """Nothing, where its counters do not say so."""
    if seen.balancer.grown(UNSERVED) > 0:
        yield from unserved(seen, "it refused the client")
    elif seen.balancer.grown(OVER_LIMIT) > 0:
        yield limited(seen, "it refused the client")


def limited(seen: Seen, how: str) -> Line:
    found = f"{how}: the client, or the key, is over the pool's [pools.limit]"
    mend = "wait, or raise the pool's limit"
    return Line(Verdict.NOT_OK, hosts.balancers(seen.balancer), found, mend)


def unserved(seen: Seen, how: str) -> Iterator[Line]:
    """Each backend's state, besides: those that were tried are told of elsewhere."""
    told = seen.balancer
    what = "client" if seen.carries == "datagram" else "connection"
    found = f"{how}: no backend could take the {what}"
    yield Line(Verdict.NOT_OK, hosts.balancers(told), found, f"{hosts.on(told)}balancer backends")
    tried = (told.flow or NOTHING).get("tried", ())
    for backend in seen.backends:
        bridge = backend["bridge"]
        if bridge in tried:
            continue
        if backend["state"] not in ("up", "starting"):
            why = f"{backend['pool']}/{backend['name']} is {backend['state']}"
            reason = f": {backend['reason']}" if backend["reason"] else ""
            yield Line(Verdict.NOT_OK, f"bridge {bridge}", why + reason)
        elif handing.troubled(seen, bridge):
            yield from handing.causes(seen, bridge)
