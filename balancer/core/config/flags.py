"""The command line's flags, in place of what the configuration says."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from balancer.core.config.pools import Backend
from balancer.core.config.program import Config
from balancer.core.config.services import Service, implied_name
from common.core import settings
from common.core.settings import IPV4


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
        changes |= {"backends": tuple(backends), "pool": None}
    try:
        changed = replace(service, **changes)
    except settings.SettingsError as error:
        problems += error.problems
    if problems:
        raise settings.SettingsError(problems)
    udp = service.protocol == "udp"
    if service.name == implied_name(service.vip, service.port, udp=udp):
        changed = replace(changed, name=implied_name(changed.vip, changed.port, udp=udp))
    return changed
