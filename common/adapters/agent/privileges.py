"""Letting go of what only the packet process needs."""

from __future__ import annotations

import ctypes
import os

_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 47, 4
_VERSION_3 = 0x20080522  # of the capabilities' structs, linux/capability.h: 64 bits in two parts


def drop_capabilities() -> None:
    """Give up every capability, for good; raises OSError. Root's own files remain root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    for failed in (
        libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0),
        libc.capset(header, none),
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
    ):
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, f"capabilities: {os.strerror(number)}")
