"""What is wrong, of all that was seen: the steps, a line each, and then the causes."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe import handing, hosts, shaking, unread
from balancer.program.probe.seen import NOTHING, Seen, Told
from common.adapters.http_exchange import Failure, Request
from common.program.examination import Line, Verdict

OWN_ANSWERS = ("HTTP/1.1 429", "HTTP/1.1 503")


def lines(seen: Seen) -> Iterator[Line]:
    """All of them, those of the steps first."""
    yield from _steps(seen)
    if not seen.balancer.trouble:
        yield from _known(seen)
    yield from _causes(seen)
    yield from _unasked(seen)


# --- steps ---


def _steps(seen: Seen) -> Iterator[Line]:
    ends = f"{seen.client} to {seen.vip}:{seen.port}"
    if seen.handshake is None:
        yield Line(Verdict.NOT_OK, "handshake", f"{ends}: {seen.words}")
        return
    yield Line(Verdict.OK, "handshake", f"{ends}: {_ms(seen.handshake)}")
    if seen.heard is not None:
        yield from unread.steps(seen.heard)
    if seen.request is not None:
        yield from _request("request", "response", seen.request)
    if seen.again is not None:
        yield from _request("request again", "response again", seen.again)


def _request(asked: str, answered: str, made: Request) -> Iterator[Line]:
    repeated = f", sent {made.repeated} times more" if made.repeated else ""
    if made.acknowledged is None:
        yield Line(Verdict.NOT_OK, asked, f"never acknowledged: {made.words}{repeated}")
        return
    yield Line(Verdict.OK, asked, f"acknowledged after {_ms(made.acknowledged)}{repeated}")
    if made.failure is None and made.first_byte is not None and made.whole is not None:
        first, whole = _ms(made.first_byte), _ms(made.whole)
        found = f"status {made.status}, first byte after {first}, {made.size} bytes after {whole}"
        yield Line(Verdict.OK, answered, found)
        return
    so_far = f" after {made.size} bytes" if made.first_byte is not None else ""
    yield Line(Verdict.NOT_OK, answered, f"{made.words}{so_far}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


# --- what the hosts know ---


def _known(seen: Seen) -> Iterator[Line]:
    flow = seen.balancer.flow
    if flow is None:
        return
    subject = hosts.balancers(seen.balancer)
    if flow["backend"] is None:
        said = f", answered: {flow['said']}" if flow["said"] else ""
        yield Line(Verdict.OK, subject, f"flow {flow['id']}: {flow['state']}{said}")
        return
    dscp = (seen.balancer.after.get("service") or NOTHING).get("dscp")
    where = f"{flow['pool']}/{flow['backend']}, bridge {flow['bridge']}, DSCP {dscp}"
    yield Line(Verdict.OK, subject, f"flow {flow['id']}: handed to {where}")
    told = seen.handed_to
    if told is not None and told.flow is not None:
        its = told.flow
        found = f"flow {its['id']}: {its['state']}, with server {its['server']}"
        yield Line(Verdict.OK, hosts.bridges(told), found)


# --- causes ---


def _causes(seen: Seen) -> Iterator[Line]:
    if seen.unread:
        yield from unread.causes(seen)
        return
    if seen.request is None:
        yield from shaking.causes(seen)
        return
    flow = seen.balancer.flow or NOTHING
    for bridge in flow.get("tried", ()):
        yield _passed_over(seen, bridge)
        yield from handing.causes(seen, bridge)
    if str(flow.get("said", "")).startswith(OWN_ANSWERS):
        yield from _own_answer(seen, str(flow["said"]))
    elif seen.request.failure is not None:
        yield from _failed(seen, seen.request)
    elif seen.again is not None and seen.again.failure is not None:
        yield from _failed(seen, seen.again)
    else:
        yield from _beside(seen)


def _passed_over(seen: Seen, bridge: str) -> Line:
    found = f"the balancer passed over {seen.name_of(bridge)}, which did not serve the connection"
    return Line(Verdict.NOT_OK, f"bridge {bridge}", found)


def _own_answer(seen: Seen, said: str) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if "429" in said:
        found = "it answered itself, 429: the client, or the key, is over the pool's [pools.limit]"
        yield Line(Verdict.NOT_OK, subject, found, "wait, or raise the pool's limit")
        return
    yield Line(
        Verdict.NOT_OK,
        subject,
        "it answered itself, 503: no backend could take the connection",
        f"{hosts.on(told)}balancer backends",
    )
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


def _failed(seen: Seen, made: Request) -> Iterator[Line]:
    told, subject = seen.balancer, hosts.balancers(seen.balancer)
    if told.trouble:
        yield from _without_balancer(seen)
        return
    flow = told.flow
    if flow is not None and flow["bridge"] is not None:
        yield from handing.causes(seen, str(flow["bridge"]))
        return
    if made.failure in (Failure.RESET, Failure.CLOSED):
        counted = told.drops(REASONS) or "nothing that tells why"
        found = f"the connection was ended; the balancer counted {counted}"
        yield Line(Verdict.NOT_OK, subject, found, f"{hosts.on(told)}journalctl -u balancer -n 20")
        return
    yield from hosts.filtered(hosts.HERE, seen.own, None)
    yield from hosts.filtered(subject, told.signs, told)
    if flow is None:
        found = f"it knows no connection of {seen.client}: the request did not reach it"
        advice = "is the client's address translated on the way?"
    else:
        found = f"it waits for the request (flow {flow['id']}): that did not reach it whole"
        advice = "a smaller MTU, or a firewall on the way?"
    counted = told.drops(REASONS)
    yield Line(Verdict.NOT_OK, subject, found + (f" ({counted})" if counted else ""), advice)


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
