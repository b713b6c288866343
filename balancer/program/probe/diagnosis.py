"""What is wrong, of all that was seen: the steps, a line each, and then the causes."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import datagrams, handing, hosts, refusing, shaking, steps
from balancer.program.probe.seen import NOTHING, Seen, Told
from balancer.program.probe.wanted import HTTP, HTTPS
from common.adapters.exchange import Failure
from common.program.examination import Line, Verdict

OWN_ANSWERS = ("HTTP/1.1 429", "HTTP/1.1 503")


def lines(seen: Seen) -> Iterator[Line]:
    """All of them, those of the steps first."""
    yield from steps.lines(seen)
    if not seen.balancer.trouble:
        yield from _known(seen)
    yield from _causes(seen)
    yield from _unasked(seen)


# --- what the hosts know ---


def _known(seen: Seen) -> Iterator[Line]:
    flow = seen.balancer.flow
    if flow is None:
        return
    subject = hosts.balancers(seen.balancer)
    what = "mapping" if seen.carries == "datagram" else "flow"
    if flow["backend"] is None:
        said = f", answered: {flow['said']}" if flow.get("said") else ""
        yield Line(Verdict.OK, subject, f"{what} {flow['id']}: {flow['state']}{said}")
        return
    where = f"{flow['pool']}/{flow['backend']}, bridge {flow['bridge']}, DSCP {seen.dscp}"
    done = "handed" if seen.carries == "handoff" else "steered"
    yield Line(Verdict.OK, subject, f"{what} {flow['id']}: {done} to {where}")
    told = seen.handed_to
    if told is not None and told.flow is not None:
        its = told.flow
        found = f"{what} {its['id']}: {its['state']}, with server {its['server']}"
        yield Line(Verdict.OK, hosts.bridges(told), found)


# --- causes ---


def _causes(seen: Seen) -> Iterator[Line]:
    made, flow = seen.made, seen.balancer.flow or NOTHING
    for bridge in flow.get("tried", ()):
        yield _passed_over(seen, bridge)
        yield from handing.causes(seen, bridge)
    if made.datagram is not None and made.datagram.failure is not None:
        yield from datagrams.causes(seen, made.datagram)
    elif made.failure is not None:
        yield from shaking.causes(seen)
    elif str(flow.get("said", "")).startswith(OWN_ANSWERS):
        yield from _own_answer(seen, str(flow["said"]))
    elif made.broken is not None and made.broken.failure is not None:
        yield from _failed(seen, made.broken.failure, made.broken.words)
    else:
        yield from _beside(seen)


def _passed_over(seen: Seen, bridge: str) -> Line:
    found = f"the balancer passed over {seen.name_of(bridge)}, which did not serve the connection"
    return Line(Verdict.NOT_OK, f"bridge {bridge}", found)


def _own_answer(seen: Seen, said: str) -> Iterator[Line]:
    if "429" in said:
        yield refusing.limited(seen, "it answered itself, 429")
    else:
        yield from refusing.unserved(seen, "it answered itself, 503")


def _failed(seen: Seen, failure: Failure, words: str) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if told.trouble:
        yield from _without_balancer(seen)
        return
    flow = told.flow
    if flow is not None and flow["bridge"] is not None:
        bridge = str(flow["bridge"])
        if failure in (Failure.NO_HTTP, Failure.NO_TLS):
            yield handing.other_words(seen, bridge, words)
        else:
            yield from handing.causes(seen, bridge)
        return
    if failure in (Failure.RESET, Failure.CLOSED):
        refused = list(refusing.causes(seen))
        yield from refused
        if refused:
            return
        yield from _other_protocol(seen)
        counted = told.drops(REASONS) or "nothing that tells why"
        found = f"the connection was ended; the balancer counted {counted}"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}journalctl -u balancer -n 20")
        return
    yield from hosts.filtered(hosts.HERE, seen.own, None)
    yield from hosts.filtered(subject, told.signs, told)
    if flow is None:
        found = f"it knows no connection of {seen.made.client}: the request did not reach it"
        advice = "is the client's address translated on the way?"
    else:
        found = f"it waits for the request (flow {flow['id']}): that did not reach it whole"
        advice = "a smaller MTU, or a firewall on the way?"
    counted = told.drops(REASONS)
    yield Line(Verdict.NOT_OK, subject, found + (f" ({counted})" if counted else ""), advice)


def _other_protocol(seen: Seen) -> Iterator[Line]:
    """A request in another protocol than the service's."""
    reads = {"http": HTTP, "tls": HTTPS}.get(seen.inspect)
    if reads is not None and reads != seen.wanted.scheme:
        found = f'its service reads something else (inspect = "{seen.inspect}")'
        mend = f"balancer probe {reads}://{seen.wanted.service}/"
        yield Line(Verdict.NOT_OK, hosts.balancers(seen.balancer), found, mend)


def _without_balancer(seen: Seen) -> Iterator[Line]:
    """Bridges that were named to the probe may tell more."""
    told = seen.balancer
    yield from hosts.filtered(hosts.HERE, seen.own, None)
    if told.trouble.startswith("the packet process"):
        restart = f"{hosts.on(told)}systemctl restart balancer"
        yield Line(
            Verdict.NOT_OK, hosts.balancers(told), f"it stands still: {told.trouble}", restart
        )
    for bridge in seen.bridges:
        yield from handing.causes(seen, bridge)


def _beside(seen: Seen) -> Iterator[Line]:
    """All went well, and yet: packets that filters dropped meanwhile, perhaps of others."""
    yield from hosts.filtered(hosts.HERE, seen.own, None, Verdict.WARNING)
    told = seen.balancer
    yield from hosts.filtered(hosts.balancers(told), told.signs, told, Verdict.WARNING)
    handed: Told | None = seen.handed_to
    if handed is not None:
        yield from hosts.filtered(hosts.bridges(handed), handed.signs, handed, Verdict.WARNING)


def _unasked(seen: Seen) -> Iterator[Line]:
    """Who did not answer."""
    for subject, told in (
        (hosts.balancers(seen.balancer), seen.balancer),
        *((hosts.bridges(each), each) for each in seen.bridges.values()),
    ):
        if told.trouble:
            found = f"what it saw: {told.at}/flow: {told.trouble}"
            yield Line(Verdict.NOT_JUDGED, subject, found)


# Why the balancer ends a connection, or drops what is sent to it.
REASONS = (
    "no_route",
    "not_http",
    "tls_hello",
    "plain_http",
    "not_tls",
    "bad_client_hello",
    "bad_server_name",
    "bad_method",
    "bad_target",
    "bad_version",
    "bad_host",
    "bad_field_value",
    "head_too_long",
    "request_timeout",
    "flow_table_full",
    "draining",
    "over_rate_limit",
    "handoff_unconfirmed",
    "handoff_unanswered",
    "unknown_flow",
    "unknown_flow_reset",
    "bad_tcp_checksum",
    "no_ack_flag",
    "flows_killed",
    "internal_error",
    "kernel_queue_lost",
)
