"""The balancer's configuration: what a file may hold, what it means, what it must not say."""

from balancer.core.config.flags import override
from balancer.core.config.pools import Backend, Check, Pool, RateLimit
from balancer.core.config.program import Config, Control, Limits, Timeouts, default, parse
from balancer.core.config.routes import Route
from balancer.core.config.services import Service

__all__ = [
    "Backend",
    "Check",
    "Config",
    "Control",
    "Limits",
    "Pool",
    "RateLimit",
    "Route",
    "Service",
    "Timeouts",
    "default",
    "override",
    "parse",
]
