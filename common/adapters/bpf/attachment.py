"""Programs at tc: added to the clsact of every Ethernet interface, beside whatever others have
there, found again by name, and removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


def attach(name: str, hooks: list[Hook]) -> list[str]:
    """Run the hooks' programs on every Ethernet interface of this host, in place of those that an
    earlier call with ``name`` left there; gives the interfaces' names."""
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - large, and used once

    with IPRoute() as netlink:
        try:
            _remove(netlink, name)
            found = list(_ethernet(netlink))
            for index, _ in found:
                _ensure_clsact(netlink, index)
                for hook in hooks:
                    netlink.tc(
                        "add-filter",
                        "bpf",
                        index,
                        fd=hook.fd,
                        name=name,
                        parent=hook.parent,
                        classid=1,
                        direct_action=True,
                        prio=PRIORITY,
                        protocol=IPV4,
                    )
        except NetlinkError as error:
            raise BpfError(f"tc: {error}") from None
        return [interface for _, interface in found]


def detach(name: str) -> None:
    """Remove what ``attach`` left under ``name``, and each clsact that this leaves empty."""
    from pyroute2 import IPRoute  # noqa: PLC0415

    with IPRoute() as netlink:
        _remove(netlink, name, qdisc=True)


def _remove(netlink: Any, name: str, qdisc: bool = False) -> None:
    for index, _ in _ethernet(netlink):
        if not _has_clsact(netlink, index):
            continue
        left = 0
        for parent in (INGRESS, EGRESS):
            for message in netlink.get_filters(index=index, parent=parent):
                options = message.get_attr("TCA_OPTIONS")
                if options is None:
                    continue  # the chain's head, which goes with its last filter
                if options.get_attr("TCA_BPF_NAME") != name:
                    left += 1
                    continue
                netlink.tc(
                    "del-filter",
                    "bpf",
                    index,
                    handle=message["handle"],
                    parent=parent,
                    prio=message["info"] >> 16,
                    protocol=IPV4,
                )
        if qdisc and not left:
            netlink.tc("del", "clsact", index)


def _ethernet(netlink: Any) -> Iterator[tuple[int, str]]:
    for link in netlink.get_links():
        if link["ifi_type"] == ETHERNET:
            yield link["index"], link.get_attr("IFLA_IFNAME")


def _has_clsact(netlink: Any, index: int) -> bool:
    qdiscs: list[Any] = list(netlink.get_qdiscs(index=index))
    return any(qdisc.get_attr("TCA_KIND") == "clsact" for qdisc in qdiscs)


def _ensure_clsact(netlink: Any, index: int) -> None:
    if not _has_clsact(netlink, index):
        netlink.tc("add", "clsact", index)
