"""Programs at tc: added to the clsact of every Ethernet interface, beside whatever others have
there, found again by name, and removed."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from common.adapters.bpf.libbpf import BpfError

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_CLSACT and TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
PRIORITY = 0xAFF0  # behind filters that somebody set by hand, before those set with none given
IPV4 = 0x0800
ETHERNET = 1  # ARPHRD_ETHER


@dataclass(frozen=True)
class Hook:
    """A program's file descriptor, and the parent (INGRESS or EGRESS) at which it runs."""

    fd: int
    parent: int


@dataclass
class Attached:
    """Names of the interfaces that run all programs; of the others, why not."""

    names: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def attach(name: str, hooks: list[Hook]) -> Attached:
    """Run the hooks' programs on every Ethernet interface of this host. Each takes the place of one
    that an earlier call with ``name`` left there, and no packet comes between.

    Raises BpfError where no interface takes them.
    """
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - large, and used once

    attached = Attached()
    with IPRoute() as netlink:
        for index, interface in list(_ethernet(netlink)):
            try:
                for hook in hooks:
                    _put(netlink, index, name, hook)
            except (NetlinkError, BpfError) as error:
                if getattr(error, "code", None) != errno.ENODEV:  # gone meanwhile
                    attached.refused.append(f"{interface}: {error}")
            else:
                attached.names.append(interface)
    if attached.refused and not attached.names:
        raise BpfError(f"tc: {'; '.join(attached.refused)}")
    return attached


def without(name: str, names: Iterable[str]) -> list[str]:
    """Those of the Ethernet interfaces of these names that run nothing of what ``attach`` put there
    under ``name``."""
    from pyroute2 import IPRoute  # noqa: PLC0415

    wanted = set(names)
    with IPRoute() as netlink:
        return [
            interface
            for index, interface in list(_ethernet(netlink))
            if interface in wanted and not _ours(netlink, index, INGRESS, name)
        ]


def detach(name: str) -> None:
    """Remove what ``attach`` left under ``name``, and each clsact that this leaves empty."""
    from pyroute2 import IPRoute  # noqa: PLC0415

    with IPRoute() as netlink:
        for index, _ in list(_ethernet(netlink)):
            if _qdisc(netlink, index) is not None:
                _remove(netlink, index, name)


def _put(netlink: Any, index: int, name: str, hook: Hook) -> None:
    qdisc = _qdisc(netlink, index)
    if qdisc is None:
        netlink.tc("add", "clsact", index)
    elif qdisc == "ingress" and hook.parent == EGRESS:
        raise BpfError("its ingress qdisc has no room for what leaves, as a clsact would have")
    present = [] if qdisc is None else _ours(netlink, index, hook.parent, name)
    netlink.tc(
        "replace-filter",
        "bpf",
        index,
        handle=present[0][0] if present else 0,
        fd=hook.fd,
        name=name,
        parent=hook.parent,
        classid=1,
        direct_action=True,
        prio=present[0][1] if present else PRIORITY,
        protocol=IPV4,  # not what has a VLAN's tag: that VLAN's interface runs them itself
    )


def _remove(netlink: Any, index: int, name: str) -> None:
    removed = 0
    for parent in (INGRESS, EGRESS):
        for handle, priority in _ours(netlink, index, parent, name):
            where = {"parent": parent, "prio": priority, "protocol": IPV4}
            netlink.tc("del-filter", "bpf", index, handle=handle, **where)
            removed += 1
    if not removed or _qdisc(netlink, index) != "clsact":
        return
    if not any(_filters(netlink, index, parent) for parent in (INGRESS, EGRESS)):
        netlink.tc("del", "clsact", index)


def _ours(netlink: Any, index: int, parent: int, name: str) -> list[tuple[int, int]]:
    """Handles and priorities of the filters of that name."""
    return [
        (each["handle"], each["info"] >> 16)
        for each in _filters(netlink, index, parent)
        if each.get_attr("TCA_KIND") == "bpf"
        and each.get_attr("TCA_OPTIONS").get_attr("TCA_BPF_NAME") == name
    ]


def _filters(netlink: Any, index: int, parent: int) -> list[Any]:
    """All filters; a chain's head, which goes with its last filter, has no options."""
    found = netlink.get_filters(index=index, parent=parent)
    return [each for each in found if each.get_attr("TCA_OPTIONS") is not None]


def _ethernet(netlink: Any) -> Iterator[tuple[int, str]]:
    for link in netlink.get_links():
        if link["ifi_type"] == ETHERNET:
            yield link["index"], link.get_attr("IFLA_IFNAME")


def _qdisc(netlink: Any, index: int) -> str | None:
    """The kind of the qdisc that filters hang in: clsact, or ingress, its elder; None: neither."""
    kinds = {qdisc.get_attr("TCA_KIND") for qdisc in netlink.get_qdiscs(index=index)}
    return next((kind for kind in ("clsact", "ingress") if kind in kinds), None)
