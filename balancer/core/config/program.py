"""The balancer's whole configuration, and what must not be said in different parts of it.

No I/O: the caller reads the file. All sizes are in bytes, all durations in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from balancer.core.config.pools import Backend, Pool
from balancer.core.config.routes import Route
from balancer.core.config.services import Service
from common.core import config, settings
from common.core.config import NO_OR_PATH, AccessLog, Http
from common.core.settings import INTERFACE, PATH, Settings, whole


@dataclass(frozen=True, slots=True)
class Limits(Settings):
    """Bounds on memory: flows with a backend, clients still without, bytes kept for those, closed
    flows remembered against replays, and UDP clients that have a backend."""

    flows: Annotated[int, whole(1, 1 << 26)] = 262144
    waiting: Annotated[int, whole(1, 1 << 26)] = 65536
    buffered_bytes: Annotated[int, whole(65536, 1 << 40)] = 67108864
    closed: Annotated[int, whole(1, 1 << 26)] = 262144
    mappings: Annotated[int, whole(1, 1 << 26)] = 262144


@dataclass(frozen=True, slots=True)
class Timeouts(Settings):
    """Seconds: until a client has sent its request, of silence, of silence once the bridge has
    said that the connection ended, of a UDP client's silence (RFC 4787 section 4.3 is about NAT:
    not under two minutes there, but for well-known ports), and that a stop waits for connections
    to end."""

    request: Annotated[float, settings.seconds(1, 86400)] = 300.0
    idle: Annotated[float, settings.seconds(1, 604800)] = 960.0
    closing: Annotated[float, settings.seconds(1, 86400)] = 15.0
    udp: Annotated[float, settings.seconds(1, 604800)] = 60.0
    drain: Annotated[float, settings.seconds(0, 86400)] = 0.0


@dataclass(frozen=True, slots=True)
class Control(config.Control):
    socket: Annotated[str, NO_OR_PATH] = "/run/l3dsr/balancer.sock"


@dataclass(frozen=True, slots=True)
class Config(Settings):
    services: tuple[Service, ...]
    routes: tuple[Route, ...] = ()
    pools: tuple[Pool, ...] = ()
    interface: Annotated[str | None, settings.optional(INTERFACE)] = None
    datapath: Literal["auto", "ebpf", "nfqueue"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    key_file: Annotated[str, PATH] = "/etc/l3dsr/key"
    queue: Annotated[int, whole(0, 65533)] = 3310
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    control: Control = field(default_factory=Control)
    http: Http = field(default_factory=Http)
    access_log: AccessLog = field(default_factory=AccessLog)

    @property
    def syn_queue(self) -> int:
        """The netfilter queue of connections' first packets: the one after ``queue``."""
        return self.queue + 1

    @property
    def datagram_queue(self) -> int:
        """That of UDP: the one after these."""
        return self.queue + 2

    @property
    def queues(self) -> dict[str, int]:
        """All of them, by what they hold."""
        held = {"packets": self.queue, "syns": self.syn_queue}
        return held | {"datagrams": self.datagram_queue}

    @property
    def all_pools(self) -> dict[str, Pool]:
        """Every pool by its name: those that stand alone, and those of services' own backends."""
        own = (Pool(s.name, s.backends) for s in self.services if s.backends)
        return {pool.name: pool for pool in (*self.pools, *own)}

    def pools_of(self, service: Service) -> tuple[Pool, ...]:
        """The pools that a service's connections can go to, each once: its own last."""
        names = dict.fromkeys(route.pool for route in self.routes_of(service))
        if service.default_pool is not None:
            names[service.default_pool] = None
        pools = self.all_pools
        return tuple(pools[name] for name in names)

    def backends_of(self, service: Service) -> tuple[Backend, ...]:
        """The backends of all these pools, each bridge once."""
        found = {b.bridge: b for pool in self.pools_of(service) for b in pool.backends}
        return tuple(found.values())

    def routes_of(self, service: Service) -> tuple[Route, ...]:
        """The routes that a service's connections can take, in their order."""
        return tuple(
            route
            for route in self.routes
            if service.inspect != "none"
            and route.service in (None, service.name)
            and route.port in (None, service.port)
            and not route.unreadable(service.inspect)
        )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.services:
            yield "services", "is empty; right would be at least one [[services]]"
        yield from settings.repeated("services", self.services, "name")
        yield from settings.repeated("pools", self.pools, "name")
        yield from self._ambiguous()
        yield from self._astray()
        yield from self._unreadable()
        yield from self._looping()

    def _ambiguous(self) -> Iterator[tuple[str, str]]:
        """A DSCP names one VIP and a VIP has one DSCP; so DSCP, protocol and port name one
        service."""
        for index, service in enumerate(self.services):
            for earlier in self.services[:index]:
                for key, text in _clash(service, earlier):
                    yield f"services[{index}].{key}", text

    def _astray(self) -> Iterator[tuple[str, str]]:
        """Names of pools and services that there are none of, or two."""
        known = {pool.name for pool in self.pools}
        for index, service in enumerate(self.services):
            path = f"services[{index}]"
            if service.backends and service.name in known:
                what = f"'{service.name}' is a pool's name, too"
                yield f"{path}.name", f"{what}; right would be another, or pool = its name"
            if service.pool is not None and service.pool not in known:
                yield f"{path}.pool", _no_such("pool", service.pool, known)
            if service.default_pool is None and not self.routes_of(service):
                yield f"{path}.pool", "is missing; right would be a pool, backends, or a route"
        known |= {service.name for service in self.services if service.backends}
        services = {service.name for service in self.services}
        for index, route in enumerate(self.routes):
            if route.pool not in known:
                yield f"routes[{index}].pool", _no_such("pool", route.pool, known)
            if route.service is not None and route.service not in services:
                yield f"routes[{index}].service", _no_such("service", route.service, services)
            elif route.service is None and not any(
                route in self.routes_of(s) for s in self.services
            ):
                what = "no service can take it"
                right = "right would be a port that there is one at, which reads what it asks for"
                yield f"routes[{index}]", f"{what}; {right}"

    def _unreadable(self) -> Iterator[tuple[str, str]]:
        """Keys and routes of what a service does not read."""
        for service in self.services:
            for pool in self.pools_of(service) if self._is_known(service) else ():
                for name in ("key", "missing"):
                    for part in service.unreadable(getattr(pool, name)):
                        what = f"'{part}' is not to be had of service '{service.name}'"
                        what += f" (inspect = '{service.inspect}')"
                        right = f"right would be {' or '.join(map(_shown, service.readable))}"
                        yield f"pools[{self.pools.index(pool)}].{name}", f"{what}; {right}"
        named = {service.name: service for service in self.services}
        for index, route in enumerate(self.routes):
            if route.service in named:
                for name, text in _unreadable(route, named[route.service]):
                    yield f"routes[{index}].{name}", text

    def _is_known(self, service: Service) -> bool:
        """Whether all pools that a service names are there."""
        known = self.all_pools
        names = {service.default_pool, *(route.pool for route in self.routes_of(service))}
        return names - {None} <= known.keys()

    def _looping(self) -> Iterator[tuple[str, str]]:
        vips = {service.vip for service in self.services}
        for group in ("services", "pools"):
            for i, owner in enumerate(getattr(self, group)):
                for j, backend in enumerate(owner.backends):
                    if backend.bridge in vips:
                        text = f"{backend.bridge} is a vip"
                        right = "right would be a packetbridge's own address"
                        yield f"{group}[{i}].backends[{j}].bridge", f"{text}; {right}"


def _unreadable(route: Route, service: Service) -> Iterator[tuple[str, str]]:
    if service.inspect == "none":
        what = f"'{service.name}' is wrong: of its clients nothing is read"
        yield "service", f"{what}; right would be a pool in the service"
        return
    for name in route.unreadable(service.inspect):
        what = f"is not to be had of service '{service.name}' (inspect = '{service.inspect}')"
        right = {"http": "what a request says", "tls": "host or alpn"}[service.inspect]
        yield name, f"{what}; right would be {right}"


def _shown(part: str) -> str:
    """A kind of key, as it is written."""
    return f"{part}:NAME" if part in ("query", "header", "cookie") else part


def _no_such(what: str, name: str, known: set[str]) -> str:
    names = ", ".join(f"'{one}'" for one in sorted(known)) or f"one that there is a [[{what}s]] of"
    return f"there is no {what} '{name}'; right would be {names}"


def _clash(service: Service, earlier: Service) -> Iterator[tuple[str, str]]:
    where = f"service '{earlier.name}'"
    alike = (service.vip, service.port, service.protocol)
    if alike == (earlier.vip, earlier.port, earlier.protocol):
        what = f"{service.vip}:{service.port} is {where} already"
        yield "port", f"{what}; right would be another port or vip"
    elif service.vip == earlier.vip and service.dscp != earlier.dscp:
        what = f"{service.dscp} is wrong for vip {service.vip}"
        yield "dscp", f"{what}; right would be {earlier.dscp} as in {where}: one VIP has one DSCP"
    elif service.vip != earlier.vip and service.dscp == earlier.dscp:
        what = f"{service.dscp} names vip {earlier.vip} ({where}) already"
        yield "dscp", f"{what}; right would be a DSCP of its own for each VIP"


def parse(text: str, file: str) -> Config:
    """The configuration in a TOML text; raises SettingsError, which names `file`."""
    return settings.read(Config, text, file)


def default() -> Config:
    """The two-box lab."""
    backend = Backend("192.168.33.20", "192.168.33.20")
    return Config((Service("192.168.33.10:80", "192.168.33.10", 80, 1, backends=(backend,)),))
