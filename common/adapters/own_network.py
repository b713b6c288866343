"""Work done in a network namespace of its own, which nothing of the host's is in and which goes
with it: to try what must not be tried on the host."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from common.adapters.aside import aside

_CLONE_NEWNET = 0x40000000

P = ParamSpec("P")
R = TypeVar("R")


def in_own_network(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``work`` returns or raises, called in a child: see aside. Raises OSError where the
    kernel, or a container, allows no namespace."""

    def entered() -> R:
        _enter()
        return work(*args, **kwargs)

    return aside(entered)


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:  # os.unshare is Python 3.12's
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace: {os.strerror(number)}")
