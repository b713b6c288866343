"""Whom a pool would choose now, in words."""

from __future__ import annotations

import time
from typing import Any

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.program.control.backends import state


def choice(pool: Pool, key: bytes, source: bytes) -> dict[str, Any]:
    """Whom a pool would give a key from that client address to, and why."""
    hash64 = key_hash(key)
    order = pool.order(hash64, source, time.monotonic())
    return {
        "pool": pool.name,
        "policy": pool.configured.policy,
        "hash": f"{hash64:016x}",
        "backend": order[0].name if order else None,
        "order": [member.name for member in order],
        "passed_over": {
            member.name: member.reason or state(member)
            for member in pool.members
            if not member.taking
        },
    }
