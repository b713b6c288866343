"""What the kernel's path needs of a host (datapath ``ebpf``, and ``auto`` where it can be had)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from common.adapters.aside import aside
from common.adapters.bpf import attachment
from common.adapters.bpf.libbpf import BpfError, Library
from common.adapters.checks import Problem
from common.adapters.own_network import in_own_network
from common.program.examination import Prerequisite

FILE_SYSTEM = "/sys/fs/bpf"


class Loaded(Protocol):
    """A program's part in the kernel, not attached."""

    def hooks(self) -> list[attachment.Hook]: ...


def prerequisites(
    datapath: str, compiled: Path, load: Callable[[], Loaded]
) -> Iterator[Prerequisite]:
    """None for the way through Python. Only where ``ebpf`` is demanded are they needed to start."""
    if datapath == "nfqueue":
        return
    fatal = datapath == "ebpf"
    yield Prerequisite("libbpf", "loads eBPF programs", partial(_library, fatal))
    yield Prerequisite(
        "bpffs", f"is at {FILE_SYSTEM}: connections outlive the program", partial(_pins, fatal)
    )
    if not compiled.exists():
        missing = Problem(f"{compiled} is not there", "make bpf", fatal)
        yield Prerequisite("eBPF programs", "", lambda: [missing])
        return
    yield Prerequisite(
        "eBPF programs",
        "the kernel takes them, at tc",
        partial(_programs, load, fatal),
        root=True,
    )


def _library(fatal: bool) -> list[Problem]:
    try:
        aside(_load_library)
    except BpfError as error:
        return [Problem(str(error), "apt-get install libbpf1", fatal)]
    return []


def _load_library() -> None:
    Library()


def _pins(fatal: bool) -> list[Problem]:
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    there = [kind for point, kind in mounts if point == FILE_SYSTEM]
    if there[-1:] == ["bpf"]:
        return []
    what = f"there is no bpf file system at {FILE_SYSTEM}, where connections outlive the program"
    return [Problem(what, f"mount -t bpf bpf {FILE_SYSTEM}", fatal)]


def _programs(load: Callable[[], Loaded], fatal: bool) -> list[Problem]:
    try:
        in_own_network(_attach, load)
    except BpfError as error:
        at_tc = str(error).startswith("tc:")
        mend = "modprobe -a sch_ingress cls_bpf" if at_tc else "choose nfqueue (--datapath)"
        return [Problem(str(error), mend, fatal)]
    except OSError as error:
        return [Problem(f"could not be tried: {error}", "try outside of a container", fatal=False)]
    return []


def _attach(load: Callable[[], Loaded]) -> None:
    from pyroute2 import IPRoute  # noqa: PLC0415 - large, and used once

    with IPRoute() as netlink:
        netlink.link("add", ifname="try0", kind="veth", peer={"ifname": "try1"})
    attachment.attach("l3dsr-doctor", load().hooks())
