"""Why a bridge did not serve the connection that the balancer had handed it."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import hosts, untaken
from balancer.program.probe.seen import NOTHING, Seen, Told
from balancer.program.probe.wanted import HTTP, HTTPS, TCP, UDP
from common.adapters.exchange import Failure
from common.program.examination import Line, Verdict

UNOPENED = ("handoff", "syn_sent")  # states of a flow whose server has not answered
# Counters of a bridge that took something, by what it gets first; of a datagram it has a mapping.
TAKEN = {"handoff": ("handoff_taken",), "SYN": ("syns",), "datagram": ()}


def causes(seen: Seen, bridge: str) -> Iterator[Line]:
    """``bridge`` is its address. One line at least."""
    told = seen.bridges.get(bridge)
    if told is None or told.trouble:
        yield from _untold(seen, bridge, told)
    elif not _took(seen, told):
        yield from untaken.causes(seen, told)
    elif not _opened(seen, told):
        yield from _unopened(seen, told)
    else:
        yield from _not_here(seen, told)


def other_words(seen: Seen, bridge: str, words: str) -> Line:
    """A server that answered, and not in the protocol that it was asked in; ``bridge`` is the
    address of its bridge."""
    told = seen.bridges.get(bridge)
    flow = NOTHING if told is None else told.flow or NOTHING
    server = flow.get("server", "its server")
    found = f"server {server} answered, in other words than asked for: {words}"
    return Line(Verdict.NOT_OK, f"bridge {bridge}", found, _asks(seen, str(server), told))


def troubled(seen: Seen, bridge: str) -> bool:
    """Whether a bridge that has not got the connection now may have had it."""
    told = seen.bridges.get(bridge)
    signs = (*TAKEN[seen.carries], *untaken.signs(seen))
    return told is not None and (bool(told.trouble) or told.grown(signs) > 0)


# --- how far it came ---


def _took(seen: Seen, told: Told) -> bool:
    return told.flow is not None or told.grown(TAKEN[seen.carries]) > 0


def _opened(seen: Seen, told: Told) -> bool:
    if seen.made.refused:  # the server's own word, of which the flow shows the end
        return False
    if told.flow is not None:
        return told.flow["state"] not in UNOPENED
    return _grown(seen, told, "opened") > 0


def _grown(seen: Seen, told: Told, name: str) -> int:
    """Of the ways in by which the balancer's packets come."""
    was, now = (untaken.way(seen, told, each) for each in (told.before, told.after))
    return int((now or NOTHING).get(name, 0)) - int((was or NOTHING).get(name, 0))


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
        what = f"it did not serve this; why could not be asked of it: {why}"
        mend = f"on {bridge}: packetbridge doctor; {hosts.on(seen.balancer)}balancer doctor"
        yield Line(Verdict.NOT_OK, subject, what, mend)


def _unopened(seen: Seen, told: Told) -> Iterator[Line]:
    """It took what it got, and has no connection with the server."""
    subject = hosts.bridges(told)
    way = untaken.way(seen, told, told.after) or NOTHING
    server = str(way.get("server", "?"))
    mend = _asks(seen, server, told)
    if seen.carries == "datagram":  # which the server's host has refused
        found = f"server {server} refuses datagrams: it does not run, or not there"
    elif _grown(seen, told, "refused") > 0:
        found = f"server {server} refuses connections: it does not run, or not there"
    elif way.get("reason"):
        found = f"server {server} gets no connections: {way['reason']}"
    else:
        before = (*_no_way_back(seen, told), *hosts.filtered(subject, told.signs, told))
        yield from before
        if before:
            return
        found = f"server {server} does not answer, or its answers do not pass the bridge's host"
    yield Line(Verdict.NOT_OK, subject, found, mend)


def _no_way_back(seen: Seen, told: Told) -> Iterator[Line]:
    """Responses, and with source = "client" the server's every packet, need a route to clients."""
    subject = hosts.bridges(told)
    missing = list(hosts.towards(subject, told, seen.made.source, "the client"))
    yield from missing
    yield from hosts.unsent(subject, told)
    if not missing and (count := told.signs.by("Ip.OutNoRoutes")) > 0:
        found = f"its host could not send {count} packets for want of a route"
        mend = f"{hosts.on(told)}ip route get {seen.made.source} from {seen.wanted.vip}"
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
    yield _silent(seen, told) or Line(
        Verdict.NOT_OK,
        subject,
        f"its {'answers' if seen.carries == 'datagram' else 'responses'}, from {seen.wanted.vip}, "
        "are lost on the way here: a firewall, a router that does not take that source from there, "
        "or a smaller MTU",
        f"{on}traceroute {seen.made.source}; on each router: sysctl net.ipv4.conf.all.rp_filter",
    )


def _silent(seen: Seen, told: Told) -> Line | None:
    """A server that has said nothing, or nothing more."""
    flow, broken = told.flow or NOTHING, seen.made.broken
    server = str(flow.get("server", "the server"))
    has = "datagram" if seen.carries == "datagram" else "connection"
    if broken is not None and broken.failure is Failure.CLOSED:
        found = f"server {server} closed the connection"
    elif _grown(seen, told, "reset") > 0:
        found = f"server {server} reset the connection before it said anything"
    elif flow and not flow["answered"]:
        found = f"server {server} has the {has}, and has not answered yet"
    else:
        return None
    return Line(Verdict.NOT_OK, hosts.bridges(told), found, _asks(seen, server, told))


def _asks(seen: Seen, server: str, told: Told | None) -> str:
    """The command that asks a server, ADDRESS:PORT, directly."""
    wanted, place = seen.wanted, server.replace(":", " ")
    by_scheme = {
        HTTP: f"curl -v http://{server}/",
        HTTPS: f"openssl s_client -connect {server} -servername {wanted.name}",
        TCP: f"nc -v {place}",
        UDP: f"nc -u -v {place}",
    }
    return f"{hosts.on(told)}{by_scheme[wanted.scheme]}"
