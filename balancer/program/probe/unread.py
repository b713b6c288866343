"""Of a connection that nobody reads: what its steps were, and why there was no handshake, which is
the server's own."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import handing, hosts, shaking
from balancer.program.probe.seen import NOTHING, Seen, Told
from common.adapters.http_exchange import Request
from common.program.examination import Line, Verdict

NOBODY, OTHERWISE = "not_served", "syn_at_bridge"


def steps(heard: Request) -> Iterator[Line]:
    """What the server said first."""
    if heard.failure is not None:
        yield Line(Verdict.NOT_OK, "first words", heard.words)
    elif heard.first_byte is None:
        yield Line(Verdict.OK, "first words", "none came: the client speaks first, it seems")
    else:
        found = f"{heard.size} bytes after {heard.first_byte * 1000:.1f} ms: {heard.words}"
        yield Line(Verdict.OK, "first words", found)


def causes(seen: Seen) -> Iterator[Line]:
    if seen.handshake is not None:
        return
    flow = seen.balancer.flow or NOTHING
    bridge = flow.get("bridge")
    if seen.balancer.trouble or not seen.balancer.after.get("service"):
        yield from shaking.causes(seen)
    elif bridge is not None:
        yield from _at_bridge(seen, str(bridge), seen.bridges.get(str(bridge)))
    elif seen.balancer.by(NOBODY) > 0:
        subject = hosts.balancers(seen.balancer)
        found = "it refused the connection: no backend could take it"
        mend = f"{hosts.on(seen.balancer)}balancer backends"
        yield Line(Verdict.NOT_OK, subject, found, mend)
    else:
        yield from shaking.causes(seen)


def _at_bridge(seen: Seen, bridge: str, told: Told | None) -> Iterator[Line]:
    if told is not None and told.by(OTHERWISE) > 0:
        found = f"it drops SYNs ({OTHERWISE}): its way in is for handoffs"
        mend = f"on {bridge}: handoff = false in that [[backends]]; systemctl reload packetbridge"
        yield Line(Verdict.NOT_OK, hosts.bridges(told), found, mend)
    elif told is not None and handing.refused_or_silent(seen, told):
        yield from handing.unopened(seen, told)
    else:
        yield from handing.causes(seen, bridge)
