"""The balancer's configuration: what a file may hold, what it means, what it must not say.

No I/O: the caller reads the file. All sizes are in bytes, all durations in seconds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from balancer.core.maglev import is_prime
from common.core import settings
from common.core.settings import INTERFACE, IPV4, NAME, PATH, PORT, Settings, whole

LARGEST_TABLE = 16_777_213  # the largest prime below 2^24: 64 MiB of table


def _prime(value: Any) -> int:
    size: int = whole(2, LARGEST_TABLE)(value)
    if not is_prime(size):
        raise ValueError
    return size


PRIME = settings.Check(f"a prime number up to {LARGEST_TABLE}, such as 65537", _prime)


@dataclass(frozen=True, slots=True)
class Backend(Settings):
    """A target: a packetbridge's address, and its share of the connections."""

    name: Annotated[str, NAME]
    bridge: Annotated[str, IPV4]
    weight: Annotated[int, whole(1, 1000)] = 1

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        return {"name": str(table.get("bridge", "?"))}


@dataclass(frozen=True, slots=True)
class Service(Settings):
    """What clients connect to, and who serves it.

    `max_head` bounds a request's head, `window_scale` is the one promised to clients (RFC 7323);
    `table_size` is the number of places in the Maglev table, best over 100 for each backend.
    """

    name: Annotated[str, NAME]
    vip: Annotated[str, IPV4]
    port: Annotated[int, PORT]
    dscp: Annotated[int, whole(1, 63)]
    backends: tuple[Backend, ...]
    bad_request: Literal["reset", "source-hash"] = "reset"
    max_head: Annotated[int, whole(1024, 65535)] = 16384
    table_size: Annotated[int, PRIME] = 65537
    window_scale: Annotated[int, whole(0, 14)] = 7

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        return {"name": f"{table.get('vip', '?')}:{table.get('port', '?')}"}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.backends:
            yield "backends", "is empty; right would be at least one [[services.backends]]"
        if self.table_size < len(self.backends):
            count = len(self.backends)
            yield "table_size", f"{self.table_size} is wrong; right would be a prime over {count}"
        for key in ("name", "bridge"):
            yield from _repeated("backends", self.backends, key)


@dataclass(frozen=True, slots=True)
class Limits(Settings):
    """Bounds on memory: flows with a backend, clients still without, bytes kept for those, and
    closed flows remembered against replays."""

    flows: Annotated[int, whole(1, 1 << 26)] = 262144
    waiting: Annotated[int, whole(1, 1 << 26)] = 65536
    buffered_bytes: Annotated[int, whole(65536, 1 << 40)] = 67108864
    closed: Annotated[int, whole(1, 1 << 26)] = 262144


@dataclass(frozen=True, slots=True)
class Timeouts(Settings):
    """Seconds: until a client has sent its request, of silence, of silence once the bridge has
    said that the connection ended, and that a stop waits for connections to end."""

    request: Annotated[float, settings.seconds(1, 86400)] = 300.0
    idle: Annotated[float, settings.seconds(1, 604800)] = 960.0
    closing: Annotated[float, settings.seconds(1, 86400)] = 15.0
    drain: Annotated[float, settings.seconds(0, 86400)] = 0.0


@dataclass(frozen=True, slots=True)
class Config(Settings):
    services: tuple[Service, ...]
    interface: Annotated[str | None, settings.optional(INTERFACE)] = None
    datapath: Literal["auto", "ebpf", "nfqueue"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    key_file: Annotated[str, PATH] = "/etc/l3dsr/key"
    queue: Annotated[int, whole(0, 65534)] = 3310
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def syn_queue(self) -> int:
        """The netfilter queue of connections' first packets: the one after ``queue``."""
        return self.queue + 1

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.services:
            yield "services", "is empty; right would be at least one [[services]]"
        yield from _repeated("services", self.services, "name")
        yield from self._ambiguous()
        yield from self._looping()

    def _ambiguous(self) -> Iterator[tuple[str, str]]:
        for index, service in enumerate(self.services):
            for earlier in self.services[:index]:
                for key, text in _clash(service, earlier):
                    yield f"services[{index}].{key}", text

    def _looping(self) -> Iterator[tuple[str, str]]:
        vips = {service.vip for service in self.services}
        for i, service in enumerate(self.services):
            for j, backend in enumerate(service.backends):
                if backend.bridge in vips:
                    text = f"{backend.bridge} is a vip; right would be a packetbridge's own address"
                    yield f"services[{i}].backends[{j}].bridge", text


def _clash(service: Service, earlier: Service) -> Iterator[tuple[str, str]]:
    """A DSCP names one VIP and a VIP has one DSCP; so (DSCP, port) names one service."""
    where = f"service '{earlier.name}'"
    if service.vip == earlier.vip and service.port == earlier.port:
        what = f"{service.vip}:{service.port} is {where} already"
        yield "port", f"{what}; right would be another port or vip"
    elif service.vip == earlier.vip and service.dscp != earlier.dscp:
        what = f"{service.dscp} is wrong for vip {service.vip}"
        yield "dscp", f"{what}; right would be {earlier.dscp} as in {where}: one VIP has one DSCP"
    elif service.vip != earlier.vip and service.dscp == earlier.dscp:
        what = f"{service.dscp} names vip {earlier.vip} ({where}) already"
        yield "dscp", f"{what}; right would be a DSCP of its own for each VIP"


def _repeated(path: str, items: Sequence[Settings], key: str) -> Iterator[tuple[str, str]]:
    values = [getattr(item, key) for item in items]
    for index, value in enumerate(values):
        if value in values[:index]:
            first = f"{path}[{values.index(value)}]"
            text = f"'{value}' is taken by {first}; right would be a {key} of its own for each"
            yield f"{path}[{index}].{key}", text


def parse(text: str, file: str) -> Config:
    """The configuration in a TOML text; raises SettingsError, which names `file`."""
    return settings.read(Config, text, file)


def default() -> Config:
    """The two-box lab."""
    backend = Backend("192.168.33.20", "192.168.33.20")
    return Config((Service("192.168.33.10:80", "192.168.33.10", 80, 1, (backend,)),))


def override(
    config: Config,
    *,
    interface: str | None = None,
    vip: str | None = None,
    port: int | None = None,
    dscp: int | None = None,
    bridge: Sequence[str] = (),
    datapath: str | None = None,
    log_level: str | None = None,
) -> Config:
    """The configuration with the command line's flags in it; raises SettingsError that names them.

    `vip`, `port`, `dscp` and `bridge` (which replaces the backends) are for the only service.
    """
    changes = {"interface": interface, "datapath": datapath, "log_level": log_level}
    service = settings.given({"vip": vip, "port": port, "dscp": dscp})
    problems: list[str] = []
    with settings.flags():
        if service or bridge:
            try:
                changed = _override_service(config, service, bridge)
                config = replace(config, services=(changed,))
            except settings.SettingsError as error:
                # A bridge that is a VIP: whichever flag made it so.
                flag = "bridge" if bridge else "vip"
                path = r"^services\[0\]\.backends\[\d+\]\.bridge"
                problems += [re.sub(path, flag, problem) for problem in error.problems]
        try:
            config = replace(config, **settings.given(changes))
        except settings.SettingsError as error:
            problems += error.problems
        if problems:
            raise settings.SettingsError(problems)
    return config


def _override_service(config: Config, changes: dict[str, Any], bridges: Sequence[str]) -> Service:
    if len(config.services) > 1:
        count = len(config.services)
        what = f"the configuration has {count} services; these flags are for one with a single one"
        raise settings.SettingsError([f"--vip, --port, --dscp, --bridge: {what}"])
    service = config.services[0]
    problems: list[str] = []
    backends = []
    for index, text in enumerate(bridges):
        try:
            backends.append(Backend(IPV4(text), text))
        except ValueError as error:
            problems.append(f"bridge: {error}")
        if text in bridges[:index]:
            problems.append(f"bridge: {text!r} is repeated; right would be each bridge once")
    if bridges and not problems:
        changes["backends"] = tuple(backends)
    try:
        changed = replace(service, **changes)
    except settings.SettingsError as error:
        problems += error.problems
    if problems:
        raise settings.SettingsError(problems)
    if service.name == f"{service.vip}:{service.port}":
        changed = replace(changed, name=f"{changed.vip}:{changed.port}")
    return changed
