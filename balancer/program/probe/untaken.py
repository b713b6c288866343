"""Why a bridge took nothing of what the balancer has sent it, if that arrived."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import hosts
from balancer.program.probe.seen import Answer, Seen, Told
from common.core.handoff import EPOCH_SECONDS
from common.program.examination import Line, Verdict

BAD_KEY, BAD_CLOCK = "bad_handoff_mac", "old_handoff_epoch"
# By what a bridge gets first: what it counts where that has a DSCP which is no way in's; and what
# its host's own stack does about it, where the bridge's rules let it by.
OTHER_DSCP = {"handoff": "no_entry", "SYN": "no_entry", "datagram": "datagram_no_entry"}
LET_BY = {
    "handoff": ("Tcp.OutRsts", "reset"),
    "SYN": ("Tcp.OutRsts", "reset"),
    "datagram": ("Udp.NoPorts", "refused"),
}


def signs(seen: Seen) -> tuple[str, ...]:
    """Counters that grow where a bridge does not take something."""
    own = (BAD_KEY, BAD_CLOCK) if seen.carries == "handoff" else ()
    return (*own, OTHER_DSCP[seen.carries], *REFUSALS[seen.carries])


def way(seen: Seen, told: Told, answer: Answer) -> Answer | None:
    """Of those that a bridge has told of, that by which the balancer's packets come."""
    for each in answer.get("ways", ()):
        if each["address"] == told.address and seen.dscp in (None, each["dscp"]):
            found: Answer = each
            return found
    return None


def causes(seen: Seen, told: Told) -> Iterator[Line]:
    """One line at least."""
    own = list(_own(seen, told))
    subject = hosts.bridges(told)
    found = own or [
        *hosts.balancers_way(seen, told.address),
        *hosts.filtered(subject, told.signs, told),
        *_other_dscp(seen, told),
    ]
    yield from found
    if not found:
        drops = told.drops(REFUSALS[seen.carries])
        what = f"it took no {seen.carries} ({drops})" if drops else f"no {seen.carries} reached it"
        mend = f"{hosts.on(seen.balancer)}balancer doctor"
        yield Line(Verdict.NOT_OK, subject, what, mend)


def _own(seen: Seen, told: Told) -> Iterator[Line]:
    """What is the bridge's, its configuration, key or clock."""
    subject, on = hosts.bridges(told), hosts.on(told)
    mine, carries = way(seen, told, told.after), seen.carries
    if mine is None:
        kind = " over UDP" if carries == "datagram" else ""
        at = f"{seen.wanted.vip} port {seen.wanted.port}"
        found = f"it has no way in for {at}{kind} with DSCP {seen.dscp}"
        mend = f"{on}packetbridge check; right would be [[balancers]] and [[backends]] of these"
        yield Line(Verdict.NOT_OK, subject, found, mend)
    elif _otherwise(mine, told, carries):
        right = "false" if carries == "SYN" else "true"
        found = f'its way in has other connections than a service with inspect = "{seen.inspect}"'
        mend = f"{on}packetbridge check; right would be handoff = {right} of that [[backends]]"
        yield Line(Verdict.NOT_OK, subject, found, mend)
    elif carries == "handoff":
        yield from _unbelieved(seen, told)


def _otherwise(mine: Answer, told: Told, carries: str) -> bool:
    """Whether connections begin with something else by that way in than with what comes."""
    if carries == "SYN":
        return mine.get("handoff") is True or told.by("syn_at_bridge") > 0
    return carries == "handoff" and mine.get("handoff") is False


def _unbelieved(seen: Seen, told: Told) -> Iterator[Line]:
    """Handoffs that are not authentic there."""
    subject, on = hosts.bridges(told), hosts.on(told)
    if (count := told.grown((BAD_KEY, BAD_CLOCK))) > 0 and _wrong_clock(seen, told):
        yield _clock(seen, told, count)
    elif (count := told.by(BAD_KEY)) > 0:
        found = f"it refused {count} handoffs: it has another key than the balancer ({BAD_KEY})"
        mend = f"copy the balancer's /etc/l3dsr/key there; {on}systemctl reload packetbridge"
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
    """The host's own TCP resets what its rules do not recognise as the bridge's, its UDP refuses
    that."""
    counter, (sign, done) = OTHER_DSCP[seen.carries], LET_BY[seen.carries]
    let_by, unknown = told.signs.by(sign), told.by(counter)
    if let_by <= 0 and unknown <= 0:
        return
    own = sign.partition(".")[0].upper()
    met = (
        f"its host's own {own} {done} {let_by} packets" if unknown <= 0 else f"{counter} +{unknown}"
    )
    found = f"packets reach its host, but not with DSCP {seen.dscp}: changed on the way ({met})"
    yield Line(
        Verdict.NOT_OK, hosts.bridges(told), found, f"{hosts.on(seen.balancer)}balancer doctor"
    )


# Why a bridge drops what comes first, or takes it for something else.
REFUSALS = {
    "handoff": (
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
    ),
    "SYN": (
        "flow_table_full",
        "draining",
        "backend_down",
        "backend_draining",
        "no_source_port",
        "bad_syn_flags",
        "bad_tcp_checksum",
        "bad_ip_header",
        "syn_at_bridge",
        "internal_error",
        "kernel_queue_lost",
        "kernel_syn_queue_lost",
    ),
    "datagram": (
        "datagram_former_entry",
        "datagram_too_large",
        "no_source_port",
        "bad_udp_checksum",
        "bad_udp_length",
        "fragment",
        "zero_port",
        "bad_ip_header",
        "internal_error",
        "kernel_queue_lost",
        "kernel_datagram_queue_lost",
    ),
}
