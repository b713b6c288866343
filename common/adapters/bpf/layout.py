"""A C structure as Python's struct module packs it, checked against what the compiler made."""

from __future__ import annotations

import struct
import zlib
from ctypes import POINTER, addressof, cast, sizeof

from common.adapters.bpf.libbpf import BpfError, BtfMember, BtfType, Library

_STRUCT_KIND = 4  # BTF_KIND_STRUCT


class Layout:
    """``name`` is the structure's, ``fields`` its members as (name, struct format character) in
    their order, without padding of the compiler's: what pads is a member of its own."""

    def __init__(self, name: str, fields: list[tuple[str, str]]) -> None:
        self.name = name
        self.fields = fields
        self._struct = struct.Struct("=" + "".join(form for _, form in fields))
        self.size = self._struct.size
        # changes with the layout: what was kept in another one is not to be read in this
        self.fingerprint = f"{zlib.crc32(repr((name, fields)).encode()):08x}"
        self.pack = self._struct.pack
        self.unpack = self._struct.unpack

    def check(self, library: Library, btf: int) -> None:
        """Raises BpfError where the object's BTF has another layout of this name."""
        functions = library.functions
        number = functions.btf__find_by_name_kind(btf, self.name.encode(), _STRUCT_KIND)
        if number < 0:
            raise BpfError(f"the object has no struct {self.name}")
        found = functions.btf__type_by_id(btf, number)
        count = found.contents.info & 0xFFFF
        at = addressof(found.contents) + sizeof(BtfType)
        members = cast(at, POINTER(BtfMember))
        theirs = {
            functions.btf__name_by_offset(btf, members[i].name).decode(): members[i].offset // 8
            for i in range(count)
        }
        ours, offset = {}, 0
        for name, form in self.fields:
            ours[name] = offset
            offset += struct.calcsize("=" + form)
        if (ours, self.size) != (theirs, found.contents.size):
            raise BpfError(
                f"struct {self.name}: {ours}, {self.size} bytes, but the object has {theirs}, "
                f"{found.contents.size} bytes"
            )
