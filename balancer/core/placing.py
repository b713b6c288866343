"""Which backend a connection gets: at first, and again where one cannot serve it."""

from __future__ import annotations

from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.context import Context
from balancer.core.flow import Flow
from balancer.core.service import Target
from common.core.ledger import Occurrence


class Placed(Occurrence):
    """Of choices."""

    NO_BACKEND = "no_backend"  # none is there that could take it
    REDISPATCHED = "redispatched"  # it went to another backend, as one could not serve it
    TRIES_OVER = "redispatch_tries_over"


def place(context: Context, flow: Flow, pool: Pool, now: float) -> Target | None:
    """Give a flow its first backend, by the hash of its key; None: there is none."""
    member = pool.choose(flow.hash64, flow.key[:4], now)
    if member is None:
        context.ledger.counts[Placed.NO_BACKEND] += 1
        return None
    return _take(flow, pool, member, now)


def place_elsewhere(context: Context, flow: Flow, now: float) -> Target | None:
    """Give a flow the next backend of its key's order; None, and it stays where it is, where there
    is none, or as many as are allowed have been tried."""
    former = flow.target
    assert former is not None, "a handed flow has a target"
    pool = context.catalogue.current(former.pool)
    tried = (*flow.tried, former.member)
    if len(tried) > pool.configured.retries:
        context.ledger.counts[Placed.TRIES_OVER] += 1
        return None
    member = pool.choose(flow.hash64, flow.key[:4], now, tried)
    if member is None:
        context.ledger.counts[Placed.NO_BACKEND] += 1
        return None
    context.ledger.counts[Placed.REDISPATCHED] += 1
    flow.release(now)
    flow.tried = tried
    # as it is configured now: what it began with may not know the way to this one
    flow.service = context.catalogue.services.get(flow.service.endpoint, flow.service)
    return _take(flow, pool, member, now)


def _take(flow: Flow, pool: Pool, member: Member, now: float) -> Target:
    flow.target = flow.service.target(pool, member)
    flow.hold(now)
    return flow.target
