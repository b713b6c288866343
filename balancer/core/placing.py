"""Which backend a connection gets: at first, and again where one cannot serve it."""

from __future__ import annotations

from balancer.core.choice.pool import Member, Pool
from balancer.core.flow import Flow
from balancer.core.service import Target
from common.core.ledger import Ledger, Occurrence


class Placed(Occurrence):
    """Of choices."""

    NO_BACKEND = "no_backend"  # none is there that could take it
    REDISPATCHED = "redispatched"  # it went to another backend, as one could not serve it
    TRIES_OVER = "redispatch_tries_over"


def place(flow: Flow, pool: Pool, digest: int, ledger: Ledger, now: float) -> Target | None:
    """Give a flow its first backend, by the digest of its key; None: there is none."""
    flow.digest = digest
    member = pool.choose(digest, flow.key[:4], now)
    if member is None:
        ledger.counts[Placed.NO_BACKEND] += 1
        return None
    return _take(flow, pool, member, now)


def place_elsewhere(flow: Flow, ledger: Ledger, now: float) -> Target | None:
    """Give a flow the next backend of its key's order; None, and it stays where it is, where there
    is none, or as many as are allowed have been tried."""
    former = flow.target
    assert former is not None, "a handed flow has a target"
    pool, tried = former.member.pool, (*flow.tried, former.member)
    if len(tried) > pool.configured.retries:
        ledger.counts[Placed.TRIES_OVER] += 1
        return None
    member = pool.choose(flow.digest, flow.key[:4], now, tried)
    if member is None:
        ledger.counts[Placed.NO_BACKEND] += 1
        return None
    ledger.counts[Placed.REDISPATCHED] += 1
    release(flow)
    flow.tried = tried
    return _take(flow, pool, member, now)


def hold(flow: Flow, now: float) -> None:
    """Count a flow among what its backend has in progress."""
    assert flow.target is not None, "a handed flow has a target"
    member = flow.target.member
    member.pool.opened(member, now)
    flow.holds = True


def release(flow: Flow) -> None:
    """Free its place there, if it has one."""
    if flow.holds and flow.target is not None:
        flow.holds = False
        member = flow.target.member
        member.pool.closed(member)


def _take(flow: Flow, pool: Pool, member: Member, now: float) -> Target:
    flow.target = flow.service.target(pool, member)
    hold(flow, now)
    return flow.target
