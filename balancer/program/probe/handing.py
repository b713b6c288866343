"""Why a bridge did not serve the connection that the balancer had handed it."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import hosts
from balancer.program.probe.seen import NOTHING, Answer, Seen, Told
from common.core.handoff import EPOCH_SECONDS
from common.program.examination import Line, Verdict

UNOPENED = ("handoff", "syn_sent")  # states of a flow whose server has not answered
BAD_KEY, BAD_CLOCK, OTHER_DSCP = "bad_handoff_mac", "old_handoff_epoch", "no_entry"


def causes(seen: Seen, bridge: str) -> Iterator[Line]:
    """``bridge`` is its address. One line at least."""
    told = seen.bridges.get(bridge)
    if told is None or told.trouble:
        yield from _untold(seen, bridge, told)
    elif not _took(told):
        yield from _not_taken(seen, told)
    elif not _opened(seen, told):
        yield from unopened(seen, told)
    else:
        yield from _not_here(seen, told)


def troubled(seen: Seen, bridge: str) -> bool:
    """Whether a bridge that has not got the connection now may have had it."""
    told = seen.bridges.get(bridge)
    signs = ("handoff_taken", BAD_KEY, BAD_CLOCK, OTHER_DSCP, *REFUSALS)
    return told is not None and (bool(told.trouble) or told.grown(signs) > 0)


# --- how far it came ---


def _took(told: Told) -> bool:
    return told.flow is not None or told.by("handoff_taken") > 0


def _opened(seen: Seen, told: Told) -> bool:
    if told.flow is not None:
        return told.flow["state"] not in UNOPENED
    return _grown(seen, told, "opened") > 0


def refused_or_silent(seen: Seen, told: Told) -> bool:
    """Whether the server has answered by RST, or not."""
    return _grown(seen, told, "refused") > 0 or _grown(seen, told, "silent") > 0


def _grown(seen: Seen, told: Told, name: str) -> int:
    """Of the ways in by which the balancer's packets come."""
    was, now = (_way(seen, told, each) for each in (told.before, told.after))
    return int((now or NOTHING).get(name, 0)) - int((was or NOTHING).get(name, 0))


def _way(seen: Seen, told: Told, answer: Answer) -> Answer | None:
    dscp = _dscp(seen)
    for way in answer.get("ways", ()):
        if way["address"] == told.address and dscp in (None, way["dscp"]):
            found: Answer = way
            return found
    return None


def _dscp(seen: Seen) -> int | None:
    service = seen.balancer.after.get("service") or NOTHING
    found: int | None = service.get("dscp")
    return found


# --- why no further ---


def _untold(seen: Seen, bridge: str, told: Told | None) -> Iterator[Line]:
    found = list(hosts.balancers_way(seen, bridge))
    yield from found
    why = "it was not asked" if told is None else told.trouble
    subject = f"bridge {bridge}"
    if "refused" in why:
        what = f"its host answers, its endpoint does not: no packetbridge runs there ({why})"
        start = f"on {bridge}: systemctl start packetbridge"
        yield Line(Verdict.NOT_OK, subject, what, start)
    elif why.startswith("the packet process"):
        restart = f"on {bridge}: systemctl restart packetbridge"
        yield Line(Verdict.NOT_OK, subject, f"it stands still: {why}", restart)
    elif not found:
        what = f"it did not serve the connection; why could not be asked of it: {why}"
        mend = f"on {bridge}: packetbridge doctor; {hosts.on(seen.balancer)}balancer doctor"
        yield Line(Verdict.NOT_OK, subject, what, mend)


def _not_taken(seen: Seen, told: Told) -> Iterator[Line]:
    """No handoff was good, if any arrived."""
    subject, on = hosts.bridges(told), hosts.on(told)
    if _way(seen, told, told.after) is None:
        found = f"it has no way in for {seen.vip} port {seen.port} with DSCP {_dscp(seen)}"
        mend = f"{on}packetbridge check; right would be [[balancers]] and [[backends]] of these"
        yield Line(Verdict.NOT_OK, subject, found, mend)
        return
    if (count := told.grown((BAD_KEY, BAD_CLOCK))) > 0 and _wrong_clock(seen, told):
        yield _clock(seen, told, count)
        return
    if (count := told.by(BAD_KEY)) > 0:
        found = f"it refused {count} handoffs: it has another key than the balancer ({BAD_KEY})"
        mend = f"copy the balancer's /etc/l3dsr/key there; {on}systemctl reload packetbridge"
        yield Line(Verdict.NOT_OK, subject, found, mend)
        return
    elsewhere = [
        *hosts.balancers_way(seen, told.address),
        *hosts.filtered(subject, told.signs, told),
        *_other_dscp(seen, told),
    ]
    yield from elsewhere
    if not elsewhere:
        drops = told.drops(REFUSALS)
        found = f"it took no handoff ({drops})" if drops else "no handoff reached it"
        mend = f"{hosts.on(seen.balancer)}balancer doctor"
        yield Line(Verdict.NOT_OK, subject, found, mend)


def _wrong_clock(seen: Seen, told: Told) -> bool:
    """A handoff's time is part of what its MAC covers: either may fail first."""
    apart = abs(told.ahead - seen.balancer.ahead) > EPOCH_SECONDS
    return apart or told.by(BAD_CLOCK) > 0


def _clock(seen: Seen, told: Told, count: int) -> Line:
    ahead = told.ahead - seen.balancer.ahead
    way = "ahead of" if ahead > 0 else "behind"
    found = f"it refused {count} handoffs: its clock is {abs(ahead):.0f} s {way} the balancer's"
    mend = "on the host whose clock is wrong: timedatectl set-ntp true"
    what = f"{found}, {EPOCH_SECONDS} s are allowed"
    return Line(Verdict.NOT_OK, hosts.bridges(told), what, mend)


def _other_dscp(seen: Seen, told: Told) -> Iterator[Line]:
    """The host's own TCP resets what its rules do not recognise as the bridge's."""
    resets, unknown = told.signs.by("Tcp.OutRsts"), told.by(OTHER_DSCP)
    if resets <= 0 and unknown <= 0:
        return
    dscp = _dscp(seen)
    met = (
        f"its host's own TCP reset {resets} packets" if unknown <= 0 else f"{OTHER_DSCP} +{unknown}"
    )
    found = f"packets reach its host, but not with DSCP {dscp}: changed on the way ({met})"
    yield Line(
        Verdict.NOT_OK, hosts.bridges(told), found, f"{hosts.on(seen.balancer)}balancer doctor"
    )


def unopened(seen: Seen, told: Told) -> Iterator[Line]:
    """It took the handoff, and has no connection with the server."""
    subject, on = hosts.bridges(told), hosts.on(told)
    way = _way(seen, told, told.after) or NOTHING
    server = way.get("server", "?")
    if _grown(seen, told, "refused") > 0:
        found = f"server {server} refuses connections: it does not run, or not there"
        yield Line(Verdict.NOT_OK, subject, found, f"{on}curl -v http://{server}/")
        return
    if way.get("reason"):
        found = f"server {server} gets no connections: {way['reason']}"
        yield Line(Verdict.NOT_OK, subject, found, f"{on}curl -v http://{server}/")
        return
    found_before = False
    for line in (*_no_way_back(seen, told), *hosts.filtered(subject, told.signs, told)):
        found_before = True
        yield line
    if not found_before:
        found = f"server {server} does not answer, or its answers do not pass the bridge's host"
        yield Line(Verdict.NOT_OK, subject, found, f"{on}curl -v http://{server}/")


def _no_way_back(seen: Seen, told: Told) -> Iterator[Line]:
    """Responses, and with source = "client" the server's every packet, need a route to clients."""
    subject = hosts.bridges(told)
    missing = list(hosts.towards(subject, told, seen.source, "the client"))
    yield from missing
    yield from hosts.unsent(subject, told)
    if not missing and (count := told.signs.by("Ip.OutNoRoutes")) > 0:
        found = f"its host could not send {count} packets for want of a route"
        mend = f"{hosts.on(told)}ip route get {seen.source} from {seen.vip}"
        yield Line(Verdict.NOT_OK, subject, found, mend)


def _not_here(seen: Seen, told: Told) -> Iterator[Line]:
    """The server has the connection; its response is not here, or not whole."""
    subject, on = hosts.bridges(told), hosts.on(told)
    found = [
        *hosts.filtered(hosts.HERE, seen.own, None),
        *_no_way_back(seen, told),
        *hosts.filtered(subject, told.signs, told),
        *hosts.balancers_way(seen, told.address),
    ]
    yield from found
    if found:
        return
    flow = told.flow or NOTHING
    server = flow.get("server", "the server")
    if flow and not flow["answered"]:
        what = f"server {server} has the connection, and has not answered yet"
        yield Line(Verdict.NOT_OK, subject, what, f"{on}curl -v http://{server}/")
    else:
        what = (
            f"its responses, from {seen.vip}, are lost on the way here: a firewall, a router that "
            "does not take that source from there, or a smaller MTU"
        )
        mend = f"{on}traceroute {seen.source}; on each router: sysctl net.ipv4.conf.all.rp_filter"
        yield Line(Verdict.NOT_OK, subject, what, mend)


# Why a bridge drops a handoff, or what it takes for none.
REFUSALS = (
    "bad_handoff_option",
    "not_a_handoff",
    "handoff_again",
    "flow_table_full",
    "draining",
    "backend_down",
    "backend_draining",
    "no_source_port",
    "held_full",
    "bad_tcp_checksum",
    "bad_ip_header",
    "syn_at_bridge",
    "unknown_flow",
    "internal_error",
    "kernel_queue_lost",
)
