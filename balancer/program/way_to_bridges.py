"""Whether what is sent to the bridges arrives, DSCP and all, and whether their clocks agree."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.core.config import Config
from common.adapters.bridge_probe import Heard, Target, ask
from common.adapters.keyfile import KeyFileError
from common.core.handoff import EPOCH_SECONDS
from common.program.examination import Line, Verdict
from common.program.keys import read_keys

SYNCHRONISE = "timedatectl set-ntp true"


def examine(config: Config, root: bool) -> Iterator[Line]:
    """For each service and bridge whether the DSCP arrives, and who answers; for each bridge its
    clock."""
    targets = {
        Target(
            service.vip, service.port, service.dscp, backend.bridge, service.protocol == "udp"
        ): backend.name
        for service in config.services
        for backend in config.backends_of(service)
    }
    if not root:
        yield Line(Verdict.NOT_JUDGED, "way to bridges", "only root can send a packet to look")
        return
    try:
        keys = read_keys(config.key_file, "balancer")[0]
    except KeyFileError:
        yield Line(Verdict.NOT_JUDGED, "way to bridges", "needs the key: see above")
        return
    answers = dict(zip(targets, ask(list(targets), keys), strict=True))
    for target, heard in answers.items():
        yield from _way(target, targets[target], heard)
    # of UDP nothing is signed
    clocks = {target.bridge: heard.ahead for target, heard in answers.items() if not target.udp}
    for bridge, ahead in clocks.items():
        yield _clock(bridge, ahead)


def _way(target: Target, name: str, heard: Heard) -> Iterator[Line]:
    subject, bridge = f"DSCP {target.dscp} to {target.bridge}", f"bridge {target.bridge}"
    service = f"{target.vip} {'UDP ' * target.udp}port {target.port}"
    if heard.ahead is not None:
        yield Line(Verdict.OK, subject, f"arrives: {name} takes packets for {service}")
        return
    if heard.refused is not None:
        what = f"this host does not send it: {heard.refused.strerror}"
        yield Line(Verdict.NOT_OK, subject, what, "see the lines above: a route, other rules")
        return
    if heard.dscp is None:
        what = "nothing is heard, of the bridge or of its host's ICMP"
        yield Line(Verdict.NOT_JUDGED, subject, what)
    elif heard.dscp == target.dscp:
        yield Line(Verdict.OK, subject, "arrives, as its host's ICMP says")
    else:
        exempt = f"-d {target.bridge} -m dscp --dscp {target.dscp} -j ACCEPT"
        yield Line(
            Verdict.NOT_OK,
            subject,
            f"arrives as {heard.dscp}, changed here or by a router: the bridge takes nothing",
            "for chain in PREROUTING FORWARD OUTPUT POSTROUTING; do "
            f"iptables -t mangle -I $chain 1 {exempt}; done",
        )
        return
    if target.udp:
        what = f"whether {name} takes packets for {service} is not asked"
        yield Line(Verdict.NOT_JUDGED, bridge, what)
        return
    yield Line(
        Verdict.NOT_OK,
        bridge,
        f"no answer: it does not run, has another key, or not DSCP {target.dscp} for {service}",
        f"on {target.bridge}: packetbridge doctor",
    )


def _clock(bridge: str, ahead: float | None) -> Line:
    subject = f"clock of {bridge}"
    if ahead is None:
        return Line(Verdict.NOT_JUDGED, subject, "only a bridge that answers tells")
    way = "ahead of" if ahead > 0 else "behind"
    found = f"{abs(ahead):.1f} s {way} this host's"
    if abs(ahead) <= EPOCH_SECONDS:
        return Line(Verdict.OK, subject, f"{found}, {EPOCH_SECONDS} s are allowed")
    what = f"{found}: more than {EPOCH_SECONDS} s, and handoffs are refused; one of them is wrong"
    return Line(Verdict.NOT_OK, subject, what, SYNCHRONISE)
