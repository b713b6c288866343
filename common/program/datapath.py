"""Which way packets take: through Python (``nfqueue``) or through the kernel (``ebpf``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.adapters.aside import aside
from common.adapters.bpf import attachment
from common.adapters.bpf.libbpf import BpfError

log = logging.getLogger(__name__)

PINS = Path("/sys/fs/bpf/l3dsr")

T = TypeVar("T")


class DatapathError(Exception):
    """The configured data path cannot be had; the text says why and what would be right."""


def choose_datapath(wanted: str, load: Callable[[], T]) -> T | None:
    """What ``load`` gives, the fast path, or None for the way through Python; says which and why.

    Raises DatapathError for ``ebpf`` where it cannot be had.
    """
    if wanted == "nfqueue":
        log.info("datapath nfqueue: as configured")
        return None
    try:
        path = load()
    except BpfError as error:
        if wanted == "ebpf":
            raise DatapathError(f"datapath ebpf: {error}; nfqueue, or auto, would do") from None
        log.info("datapath nfqueue: %s", error)
        return None
    log.info("datapath ebpf: the kernel takes it")
    return path


def attach(name: str, hooks: list[attachment.Hook]) -> list[str]:
    """Run programs at tc; gives the names of the interfaces that take all of them."""
    attached = aside(attachment.attach, name, hooks)
    for reason in attached.refused:
        log.warning("%s (packets go through Python there)", reason)
    return attached.names


def pin_directory(program: str) -> Path:
    """Where a program's objects have names: one directory for each network namespace, as hosts that
    are namespaces of one machine share /sys/fs/bpf."""
    return PINS / f"{program}-{os.stat('/proc/self/ns/net').st_ino}"


def remove_pins(directory: Path) -> None:
    """Remove a program's names, and with them what they alone kept in the kernel."""
    if directory.is_dir():
        for pin in directory.iterdir():
            pin.unlink()
        directory.rmdir()
