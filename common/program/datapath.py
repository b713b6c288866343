"""Which way packets take: through Python (``nfqueue``) or through the kernel (``ebpf``)."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class DatapathError(Exception):
    """The configured data path cannot be had; the text says why and what would be right."""


def choose_datapath(wanted: str) -> None:
    """Say which path is taken and why; raises DatapathError for one that cannot be."""
    if wanted == "ebpf":
        raise DatapathError(
            "datapath ebpf: this version has no eBPF programs; right would be nfqueue, or auto"
        )
    why = "as configured" if wanted == "nfqueue" else "this version has no eBPF programs"
    log.info("datapath nfqueue: %s", why)
