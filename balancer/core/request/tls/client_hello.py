"""Decodes the ClientHello that a TLS connection begins with, as far as a server is chosen by it.

Source: RFC 8446 section 4.1.2; that of TLS 1.0 to 1.2 is laid out alike (RFC 5246 section 7.4.1.2).
What is read: the server's name and the protocols offered. All else is stepped over, whatever it is:
a key share of any size, GREASE (RFC 8701), or the true ClientHello of Encrypted Client Hello, in
which case the name is the outer one (RFC 9849 section 6.1).

The answer is final: more bytes never change it. It comes with the end of the message (an extension
may be repeated in it, so that none is certain before), or as soon as the message cannot be right:
each length is judged when it is there, the content of the two extensions when that is whole.
"""

import struct
from typing import NamedTuple

from balancer.core.request.tls import records
from balancer.core.request.tls.server_name import MOST_EXTENSION, protocols, server_name
from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason


class ClientHello(NamedTuple):
    """``name`` is the server's, in lower case and without a final dot, b"" where none is said;
    ``protocols`` those offered by ALPN, in the client's order."""

    name: bytes
    protocols: tuple[bytes, ...]


Inspection = NeedMore | ClientHello | Bad

_CLIENT_HELLO = 1
_HEADER_LENGTH = 4  # struct { HandshakeType msg_type; uint24 length; ... } Handshake;
# struct {
#     ProtocolVersion legacy_version; Random random;
#     opaque legacy_session_id<0..32>;
#     CipherSuite cipher_suites<2..2^16-2>;
#     opaque legacy_compression_methods<1..2^8-1>;
#     Extension extensions<8..2^16-1>;          none at all in many of TLS 1.2
# } ClientHello;
_BEFORE_SESSION = _HEADER_LENGTH + 2 + 32
# Of each of the three vectors: bytes of its length, the least and the most, and of an item.
_VECTORS = ((1, 0, 32, 1), (2, 2, 0xFFFE, 2), (1, 1, 0xFF, 1))
_LENGTH = struct.Struct("!H")
_EXTENSION = struct.Struct("!HH")  # struct { ExtensionType extension_type; opaque data<0..2^16-1> }
_SERVER_NAME, _ALPN = 0, 16
_BAD = Bad(Reason.BAD_CLIENT_HELLO)


def inspect(data: bytes, limit: int) -> Inspection:
    """What the first bytes of a connection are.

    The ClientHello must end within ``limit`` bytes, the headers of its records included. Never
    raises, whatever the bytes.
    """
    if len(data) >= limit:
        data = data[: max(limit, 0)]
        answer = _inspect(data, limit)
        return Bad(Reason.HEAD_TOO_LONG) if isinstance(answer, NeedMore) else answer
    return _inspect(data, limit)


def _inspect(data: bytes, limit: int) -> Inspection:
    gathered = records.gather(data)
    if gathered is None:
        return NEED_MORE
    if isinstance(gathered, Bad):
        return gathered
    message, start, stop, fault = gathered
    end = start + _HEADER_LENGTH
    if stop > start and message[start] != _CLIENT_HELLO:
        return Bad(Reason.NO_CLIENT_HELLO)
    if stop >= end:
        end += int.from_bytes(message[start + 1 : end], "big")
        if _least(end - start) > limit:
            return Bad(Reason.HEAD_TOO_LONG)
        answer = _read(message, start, stop, end)
        if answer is not None:
            return answer
    if fault is not None:
        return fault
    return NeedMore(len(data) + end - stop)


def _least(length: int) -> int:
    """Bytes that a message of that length takes with the headers of its records."""
    return length + records.HEADER_LENGTH * -(-length // records.MOST_CONTENT)


def _read(data: bytes, start: int, stop: int, end: int) -> ClientHello | Bad | None:
    """A message from ``start`` to ``end``, of which the bytes before ``stop`` are there. None: they
    are right so far."""
    at = start + _BEFORE_SESSION
    for size, least, most, item in _VECTORS:
        first = at + size
        if first > end:
            return _BAD
        if first > stop:
            return None
        length = int.from_bytes(data[at:first], "big")
        if not least <= length <= most or length % item:
            return _BAD
        at = first + length
    if at == end:
        return ClientHello(b"", ()) if stop >= end else None
    if at + 2 > end:
        return _BAD
    if at + 2 > stop:
        return None
    (length,) = _LENGTH.unpack_from(data, at)
    if at + 2 + length != end:
        return _BAD
    return _read_extensions(data, at + 2, min(stop, end), end)


def _read_extensions(data: bytes, at: int, stop: int, end: int) -> ClientHello | Bad | None:
    name: bytes = b""
    offered: tuple[bytes, ...] = ()
    seen: set[int] = set()
    unpack, size = _EXTENSION.unpack_from, _EXTENSION.size
    while at < end:
        first = at + size
        if first > end:
            return _BAD
        if first > stop:
            return None
        kind, length = unpack(data, at)
        at = first + length
        if at > end:
            return _BAD
        # RFC 8446 section 4.2: "There MUST NOT be more than one extension of the same type".
        if kind in seen:
            return Bad(Reason.REPEATED_EXTENSION)
        seen.add(kind)
        if kind == _SERVER_NAME:
            named = _name(data, first, at, stop)
            if not isinstance(named, bytes):
                return named
            name = named
        elif kind == _ALPN:
            listed = _offered(data, first, at, stop)
            if not isinstance(listed, tuple):
                return listed
            offered = listed
    return ClientHello(name, offered) if stop >= end else None


def _name(data: bytes, first: int, end: int, stop: int) -> bytes | Bad | None:
    if end - first <= MOST_EXTENSION:
        if end > stop:
            return None
        name = server_name(data[first:end])
        if name is not None:
            return name
    return Bad(Reason.BAD_SERVER_NAME)


def _offered(data: bytes, first: int, end: int, stop: int) -> tuple[bytes, ...] | Bad | None:
    if end > stop:
        return None
    names = protocols(data[first:end])
    return Bad(Reason.BAD_ALPN) if names is None else names
