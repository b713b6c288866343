"""The HPACK encoder of nghttp2, curl's own, by ctypes: independent of the decoder under test."""

from __future__ import annotations

import ctypes

NO_INDEX = 1  # NGHTTP2_NV_FLAG_NO_INDEX: a literal that is never indexed
TABLE = 4096

_library = ctypes.CDLL("libnghttp2.so.14")  # Debian's libcurl4 needs it


class _Pair(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
        ("name_length", ctypes.c_size_t),
        ("value_length", ctypes.c_size_t),
        ("flags", ctypes.c_uint8),
    )


_size, _handle = ctypes.c_size_t, ctypes.c_void_p
_library.nghttp2_hd_deflate_new.argtypes = (ctypes.POINTER(_handle), _size)
_library.nghttp2_hd_deflate_change_table_size.argtypes = (_handle, _size)
_library.nghttp2_hd_deflate_bound.argtypes = (_handle, ctypes.POINTER(_Pair), _size)
_library.nghttp2_hd_deflate_bound.restype = _size
_library.nghttp2_hd_deflate_hd.argtypes = (
    _handle,
    ctypes.c_char_p,
    _size,
    ctypes.POINTER(_Pair),
    _size,
)
_library.nghttp2_hd_deflate_hd.restype = ctypes.c_ssize_t
_library.nghttp2_hd_deflate_del.argtypes = (_handle,)


def encoded(pairs: list[tuple[bytes, bytes, bool]], sizes: list[int]) -> bytes:
    """A header section of (name, value, whether never to be indexed), with a table that has been
    given these sizes before."""
    encoder = _handle()
    assert _library.nghttp2_hd_deflate_new(ctypes.byref(encoder), TABLE) == 0
    try:
        for size in sizes:
            assert _library.nghttp2_hd_deflate_change_table_size(encoder, size) == 0
        made = [_Pair(n, v, len(n), len(v), NO_INDEX * never) for n, v, never in pairs]
        array = (_Pair * len(made))(*made)
        room = _library.nghttp2_hd_deflate_bound(encoder, array, len(made))
        buffer = ctypes.create_string_buffer(room)
        length = _library.nghttp2_hd_deflate_hd(encoder, buffer, room, array, len(made))
        assert length >= 0
        return buffer.raw[:length]
    finally:
        _library.nghttp2_hd_deflate_del(encoder)
