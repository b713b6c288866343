"""The bridge's configuration: what a file may hold, what it means, what it must not say.

No I/O: the caller reads the file. All sizes are in bytes, all durations in seconds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from common.core import config as common
from common.core import settings
from common.core.config import BRIDGE_PORT, ENDPOINTS, NO_OR_PATH, AccessLog
from common.core.settings import (
    ENDPOINT,
    INTERFACE,
    IPV4,
    PATH,
    PORT,
    PORT_RANGE,
    Joined,
    Settings,
    SettingsError,
    whole,
)
from packetbridge.core.checking import Check

DSCP = whole(1, 63)
OF_CONNECTIONS = ("hold_handshake", "connect", "on_down")  # of a backend's settings
MARK_MASK = 0xFFFFFF00  # the low 8 bits of a packet's mark hold the DSCP


def _mark(value: Any) -> int:
    mark: int = whole(0x100, MARK_MASK)(value)
    if mark & ~MARK_MASK:
        raise ValueError
    return mark


MARK = settings.Check("a 32-bit mark whose low 8 bits are zero, such as 0x4c330000", _mark)


@dataclass(frozen=True, slots=True)
class Balancer(Settings):
    """A balancer in front: the VIP that its DSCP names."""

    dscp: Annotated[int, DSCP]
    vip: Annotated[str, IPV4]


@dataclass(frozen=True, slots=True)
class Backend(Settings):
    """A server behind this bridge.

    Connections handed to `address`:`port` are opened to the server; `dscps` narrows that to
    some of the balancers (empty: all). `handoff`: whether connections begin with one, as they do
    where the balancer reads something of them; never with UDP. `source`: whether the server sees
    the client's address or the bridge's own with a port of `ports` (first, last), which nothing
    else on this host may use.
    A server that takes no connection within `connect` seconds is passed over: the balancer tries
    another bridge. So is one that its `check` has found down; its connections go on, or are reset,
    as `on_down` says.
    """

    address: Annotated[str, IPV4]
    port: Annotated[int, PORT]
    server_address: Annotated[str, IPV4]
    server_port: Annotated[int, PORT]
    dscps: Annotated[tuple[int, ...], settings.tuple_of(DSCP)] = ()
    source: Literal["client", "bridge"] = "client"
    ports: Annotated[tuple[int, int], PORT_RANGE] = (20000, 29999)
    hold_handshake: Literal["auto", "on", "off"] = "auto"
    connect: Annotated[float, settings.seconds(0.05, 60)] = 1.0
    on_down: Literal["keep", "reset"] = "keep"
    check: Check | None = None
    protocol: Literal["tcp", "udp"] = "tcp"
    handoff: Annotated[bool, settings.YES_NO] = True

    joined: ClassVar[Mapping[str, Joined]] = {
        "server": Joined(("server_address", "server_port"), ENDPOINT),
        "dscp": settings.renamed("dscps", settings.tuple_of(DSCP)),
    }

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        return {"handoff": False} if table.get("protocol") == "udp" else {}

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.protocol == "udp" and self.handoff:
            yield "handoff", "is wrong with protocol 'udp'; right would be false"
        for key in OF_CONNECTIONS if self.protocol == "udp" else ():
            if getattr(self, key) != self.__dataclass_fields__[key].default:
                yield key, "is for connections, not for protocol 'udp'; right would be none"
        if self.check is not None and self.check.kind == "udp" and self.protocol != "udp":
            yield "check", "is of kind 'udp'; right would be one of kind 'tcp' or 'http'"
        if len(set(self.dscps)) < len(self.dscps):
            yield "dscp", f"{list(self.dscps)} repeats a DSCP; right would be each of them once"
        low, high = self.ports
        if self.source == "bridge" and low <= self.port <= high:
            yield "ports", f"{low}-{high} holds the service port {self.port}; right would be others"


@dataclass(frozen=True, slots=True)
class Limits(Settings):
    """Bounds on memory: flows, closed flows remembered against replays, bytes held for servers
    that have not answered yet, and UDP clients whose answers are translated."""

    flows: Annotated[int, whole(1, 1 << 26)] = 262144
    closed: Annotated[int, whole(1, 1 << 26)] = 262144
    held_bytes: Annotated[int, whole(65536, 1 << 40)] = 67108864
    mappings: Annotated[int, whole(1, 1 << 26)] = 262144


@dataclass(frozen=True, slots=True)
class Timeouts(Settings):
    """Seconds: of silence, of silence after FIN or RST, that a closed flow's packets are still
    translated, of a UDP client's and its server's silence, and that a stop waits for connections
    to end."""

    idle: Annotated[float, settings.seconds(1, 604800)] = 900.0
    closing: Annotated[float, settings.seconds(1, 86400)] = 50.0
    linger: Annotated[float, settings.seconds(0, 86400)] = 10.0
    udp: Annotated[float, settings.seconds(1, 604800)] = 60.0
    drain: Annotated[float, settings.seconds(0, 86400)] = 0.0


@dataclass(frozen=True, slots=True)
class Control(common.Control):
    socket: Annotated[str, NO_OR_PATH] = "/run/l3dsr/packetbridge.sock"


@dataclass(frozen=True, slots=True)
class Http(Settings):
    """Where /health and /metrics are to be had by HTTP; None: see Config.endpoints."""

    listen: Annotated[tuple[tuple[str, int], ...] | None, settings.optional(ENDPOINTS)] = None


@dataclass(frozen=True, slots=True)
class Config(Settings):
    """`mark` is put on what the bridge sends to a server, with the DSCP in its low 8 bits."""

    balancers: tuple[Balancer, ...]
    backends: tuple[Backend, ...]
    interface: Annotated[str | None, settings.optional(INTERFACE)] = None
    datapath: Literal["auto", "ebpf", "nfqueue"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    key_file: Annotated[str, PATH] = "/etc/l3dsr/key"
    queue: Annotated[int, whole(0, 65535)] = 3320
    mark: Annotated[int, MARK] = 0x4C330000
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    control: Control = field(default_factory=Control)
    http: Http = field(default_factory=Http)
    access_log: AccessLog = field(default_factory=AccessLog)

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Where to answer by HTTP: where balancers look, unless something else is said."""
        if self.http.listen is not None:
            return self.http.listen
        return tuple((address, BRIDGE_PORT) for address in self.addresses)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The bridge's addresses, each once."""
        return tuple(dict.fromkeys(backend.address for backend in self.backends))

    def vip(self, dscp: int) -> str:
        """The VIP that a configured DSCP names; raises KeyError for another."""
        return {balancer.dscp: balancer.vip for balancer in self.balancers}[dscp]

    def dscps(self, backend: Backend) -> tuple[int, ...]:
        """The DSCPs whose connections a backend takes: its own list, or every balancer's."""
        return backend.dscps or tuple(balancer.dscp for balancer in self.balancers)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for key in ("balancers", "backends"):
            if not getattr(self, key):
                yield key, f"is empty; right would be at least one [[{key}]]"
        yield from self._balancer_conflicts()
        yield from self._backend_conflicts()

    def _balancer_conflicts(self) -> Iterator[tuple[str, str]]:
        for index, balancer in enumerate(self.balancers):
            for earlier in self.balancers[:index]:
                path = f"balancers[{index}]"
                if balancer.dscp == earlier.dscp:
                    what = f"{balancer.dscp} names vip {earlier.vip} already"
                    yield f"{path}.dscp", f"{what}; right would be a DSCP of its own for each VIP"
                elif balancer.vip == earlier.vip:
                    what = f"{balancer.vip} has the DSCP {earlier.dscp} already"
                    yield f"{path}.vip", f"{what}; right would be one DSCP for a VIP"

    def _backend_conflicts(self) -> Iterator[tuple[str, str]]:
        named = {balancer.dscp for balancer in self.balancers}
        taken: dict[tuple[str, int, int, str], int] = {}
        for index, backend in enumerate(self.backends):
            path = f"backends[{index}]"
            for dscp in self.dscps(backend):
                if dscp not in named:
                    known = ", ".join(map(str, sorted(named)))
                    yield f"{path}.dscp", f"no balancer has the DSCP {dscp}; right would be {known}"
                way = (backend.address, backend.port, dscp, backend.protocol)
                first = taken.setdefault(way, index)
                if first != index:
                    what = f"{backend.address}:{backend.port} with DSCP {dscp}"
                    what += f" is backends[{first}] already"
                    yield path, f"{what}; right would be another address, port or dscp"


def parse(text: str, file: str) -> Config:
    """The configuration in a TOML text; raises SettingsError, which names `file`."""
    return settings.read(Config, text, file)


def default() -> Config:
    """The two-box lab's backend."""
    backend = Backend("192.168.33.20", 80, "192.168.33.30", 80)
    return Config((Balancer(1, "192.168.33.10"),), (backend,))


def override(
    config: Config,
    *,
    interface: str | None = None,
    address: str | None = None,
    port: int | None = None,
    backend: str | None = None,
    balancer: Sequence[str] = (),
    source: str | None = None,
    datapath: str | None = None,
    log_level: str | None = None,
) -> Config:
    """The configuration with the command line's flags in it; raises SettingsError that names them.

    `address`, `port`, `backend` (ADDR:PORT of the server) and `source` are for the only backend;
    `balancer` (each DSCP:VIP) replaces the balancers.
    """
    changes = {"interface": interface, "datapath": datapath, "log_level": log_level}
    only = settings.given({"address": address, "port": port, "source": source})
    with settings.flags():
        problems: list[str] = []
        if backend is not None:
            with _noted(problems):
                only |= _server(backend)
        balancers = []
        for text in balancer:
            with _noted(problems):
                balancers.append(_balancer(text))
        if balancers and not problems:
            with _noted(problems):
                config = replace(config, balancers=tuple(balancers))
        if only:
            with _noted(problems):
                config = replace(config, backends=(replace(_only_backend(config), **only),))
        with _noted(problems):
            config = replace(config, **settings.given(changes))
        if problems:
            raise SettingsError(problems)
    return config


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Mistakes go on the list; those between several values are --balancer's here."""
    try:
        yield
    except SettingsError as error:
        path = r"^(balancers|backends)\[\d+\](\.\w+)?:"
        problems += [re.sub(path, "balancer:", problem) for problem in error.problems]


def _only_backend(config: Config) -> Backend:
    if len(config.backends) > 1:
        count = len(config.backends)
        what = f"the configuration has {count} backends; these flags are for one with a single one"
        raise SettingsError([f"--address, --port, --backend, --source: {what}"])
    return config.backends[0]


def _server(text: str) -> dict[str, Any]:
    try:
        address, port = ENDPOINT(text)
    except ValueError as error:
        raise SettingsError([f"backend: {error}"]) from None
    return {"server_address": address, "server_port": port}


def _balancer(text: str) -> Balancer:
    dscp, _, vip = text.partition(":")
    try:
        return Balancer(int(dscp), vip)
    except (ValueError, SettingsError):
        wanted = "DSCP:VIP with a DSCP from 1 to 63, such as '1:192.168.33.10'"
        raise SettingsError([f"balancer: '{text}' is wrong; right would be {wanted}"]) from None
