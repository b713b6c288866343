"""libbpf, as much of it as is needed, through ctypes: Debian's library knows how to load an object
file on each kernel, and PyPI's bindings hand out no program descriptors."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

LIBRARY = "libbpf.so.1"
MAX_LOG = 1 << 20  # bytes kept of what the library says while it loads


class BpfError(Exception):
    """What the kernel or the library refused, and why, as far as either says."""


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class BtfType(ctypes.Structure):
    """struct btf_type; a structure's members follow it."""

    _fields_ = (("name", c_uint32), ("info", c_uint32), ("size", c_uint32))


class BtfMember(ctypes.Structure):
    """struct btf_member; `offset` in bits."""

    _fields_ = (("name", c_uint32), ("type", c_uint32), ("offset", c_uint32))


# Called with a context, and a record's address and size; 0 to go on, STOP to do so another time.
STOP = -1
SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_pin_path": (c_int, [c_void_p, c_char_p]),
    "libbpf_set_print": (c_void_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__pin": (c_int, [c_void_p, c_char_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_lookup_and_delete_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_prog_test_run_opts": (c_int, [c_int, POINTER(TestRunOptions)]),
    "libbpf_num_possible_cpus": (c_int, []),
    "ring_buffer__new": (c_void_p, [c_int, SAMPLE, c_void_p, c_void_p]),
    "ring_buffer__consume": (c_int, [c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (POINTER(BtfType), [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
}
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)


class Library:
    """The functions of `_SIGNATURES`, and what the library last said (`said`)."""

    def __init__(self) -> None:
        try:
            self.functions = ctypes.CDLL(LIBRARY, use_errno=True)
        except OSError as error:
            text = f"{LIBRARY} cannot be loaded: {error} (apt-get install libbpf1)"
            raise BpfError(text) from None
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.functions, name)
            function.restype, function.argtypes = result, arguments
        self._format = ctypes.CDLL(None).vsnprintf
        self._format.argtypes = [c_void_p, c_size_t, c_char_p, c_void_p]
        self.said = ""
        self._print = _PRINT(self._listen)  # kept: the library calls it
        self.functions.libbpf_set_print(self._print)

    def _listen(self, level: int, form: bytes, arguments: int) -> int:
        if level <= 1:  # warnings and what is worse or as bad
            text = ctypes.create_string_buffer(1 << 16)
            self._format(text, len(text), form, arguments)
            self.said = (self.said + text.value.decode(errors="replace"))[-MAX_LOG:]
        return 0
