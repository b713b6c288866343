"""The handshake message that a TLS connection begins with, gathered from the records it comes in.

Source: RFC 8446 section 5.1; TLS 1.0 to 1.2 have the same records (RFC 5246 section 6.2.1).
"""

import re
import struct
from typing import Final, NamedTuple

from balancer.core.request.verdict import Bad, Reason

HEADER_LENGTH: Final = 5
MOST_CONTENT: Final = 1 << 14
"""Bytes of a record's content: "The length MUST NOT exceed 2^14 bytes"."""

# struct { ContentType type; ProtocolVersion legacy_record_version; uint16 length; ...fragment };
# of the version only what TLS of any version and SSL 3 have in common: "legacy_record_version [...]
# MUST be ignored for all purposes".
_HEADER = struct.Struct("!BBxH")
_ALERT, _HANDSHAKE = 21, 22
_TYPES = range(20, 25)  # change_cipher_spec, alert, handshake, application_data, heartbeat
_MAJOR = 3
# As HTTP/1.x and the preface of HTTP/2 begin: a method, a space, and what may begin a target.
_HTTP = re.compile(rb"[A-Z]{1,17} [/*A-Za-z]")
_PERHAPS_HTTP = re.compile(rb"[A-Z]{1,17} ?")


class Gathered(NamedTuple):
    """The message's bytes so far are ``data[start:stop]``; ``fault`` is what stands where they
    should go on, unless they come to their end before it."""

    data: bytes
    start: int
    stop: int
    fault: Bad | None


def gather(data: bytes) -> Gathered | Bad | None:
    """From the first bytes of a connection; Bad if they are no handshake's, None if that is too
    early to say. Never raises."""
    if len(data) < HEADER_LENGTH or data[0] != _HANDSHAKE or data[1] != _MAJOR:
        return _too_few(data)
    _, _, length = _HEADER.unpack_from(data)
    fault = _bad_length(length)
    if fault is not None:
        return fault
    stop = HEADER_LENGTH + length
    if stop >= len(data):  # most often: all there is, in one record
        return Gathered(data, HEADER_LENGTH, len(data), None)
    return _join(data, stop)


def _join(data: bytes, end: int) -> Gathered:
    """The contents of several records, the first of which, a good one, ends before ``end``."""
    parts, at, size = [data[HEADER_LENGTH:end]], end, len(data)
    fault = None
    while fault is None and at < size:
        if at + HEADER_LENGTH > size:
            fault = _bad_beginning(data[at:])
            break
        kind, major, length = _HEADER.unpack_from(data, at)
        fault = _bad_type(kind, major) or _bad_length(length)
        if fault is None:
            at += HEADER_LENGTH
            parts.append(data[at : at + length])
            at += length
    message = b"".join(parts)
    return Gathered(message, 0, len(message), fault)


def _too_few(data: bytes) -> Bad | None:
    """Of less than a record's header, or another's."""
    if not data:
        return None
    if data[0] not in _TYPES:
        return _no_tls(data)
    return _bad_beginning(data)


def _bad_beginning(data: bytes) -> Bad | None:
    """What is wrong with what there is of a header, if anything."""
    return _bad_type(data[0], data[1] if len(data) > 1 else _MAJOR)


def _bad_type(kind: int, major: int) -> Bad | None:
    if kind != _HANDSHAKE:
        # "Handshake messages MUST NOT be interleaved with other record types."
        return Bad(Reason.TLS_ALERT if kind == _ALERT else Reason.TLS_RECORD_TYPE)
    return None if major == _MAJOR else Bad(Reason.TLS_RECORD_VERSION)


def _bad_length(length: int) -> Bad | None:
    # "Implementations MUST NOT send zero-length fragments of Handshake types".
    return None if 0 < length <= MOST_CONTENT else Bad(Reason.TLS_RECORD_LENGTH)


def _no_tls(data: bytes) -> Bad | None:
    """The name for what begins with no record of TLS, once it has come so far that it has one."""
    # RFC 5246 appendix E.2: uint8 V2CipherSpec...; struct { uint16 msg_length; uint8 msg_type;
    # Version version; ... } V2ClientHello. "The highest bit MUST be 1"; "msg_type [...] MUST be 1".
    if data[0] & 0x80:
        if len(data) < 3:
            return None
        return Bad(Reason.SSLV2_HELLO if data[2] == 1 else Reason.NOT_TLS)
    if _HTTP.match(data):
        return Bad(Reason.PLAIN_HTTP)
    return None if _PERHAPS_HTTP.fullmatch(data) else Bad(Reason.NOT_TLS)
