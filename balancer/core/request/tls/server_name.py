"""The name of the server that a client wants, and which protocols it would speak with it.

Source: RFC 6066 section 3 (server_name, SNI), RFC 7301 section 3.1 (ALPN).
"""

import re
import struct
from typing import Final

MOST_NAME: Final = 253
"""Bytes, without a final dot. RFC 1035 section 2.3.4 has 255, with a length before each label and
before the root's, which is empty."""

# struct { NameType name_type; opaque HostName<1..2^16-1>; } ServerName;
# struct { ServerName server_name_list<1..2^16-1> } ServerNameList;
_LIST = struct.Struct("!HBH")
_HOST_NAME = 0
MOST_EXTENSION: Final = _LIST.size + MOST_NAME + 1  # the dot

# RFC 6066: "a byte string using ASCII encoding without a trailing dot", which some send all the
# same; "literal IPv4 and IPv6 addresses are not permitted", and no name of the DNS has a last label
# of digits alone (RFC 3696 section 2). Of labels what resolvers look up is taken, "_" too.
_NAME = re.compile(
    rb"(?=.{1,%d}+\.?\Z)(?:[A-Za-z0-9_-]{1,63}\.)*(?=[0-9]*+[A-Za-z_-])[A-Za-z0-9_-]{1,63}\.?"
    % MOST_NAME
)


def server_name(extension: bytes) -> bytes | None:
    """The name in the content of a server_name extension, in lower case, without a final dot; None
    if it is not one of the DNS.

    Of host names there must be one, and of other types there are none: servers (OpenSSL, BoringSSL)
    want it so, too.
    """
    if not _LIST.size < len(extension) <= MOST_EXTENSION:
        return None
    whole, kind, length = _LIST.unpack_from(extension)
    if whole != len(extension) - 2 or kind != _HOST_NAME or length != whole - 3:
        return None
    name = extension[_LIST.size :]
    return name.lower().removesuffix(b".") if _NAME.fullmatch(name) else None


def protocols(extension: bytes) -> tuple[bytes, ...] | None:
    """The names in the content of an ALPN extension, in the client's order; without those that are
    reserved to be ignored (GREASE, RFC 8701). None if it is malformed."""
    # opaque ProtocolName<1..2^8-1>;
    # struct { ProtocolName protocol_name_list<2..2^16-1> } ProtocolNameList;
    size = len(extension)
    if size < 4 or int.from_bytes(extension[:2], "big") != size - 2:
        return None
    names, at = [], 2
    while at < size:
        end = at + 1 + extension[at]
        if end > size or end == at + 1:
            return None
        names.append(extension[at + 1 : end])
        at = end
    return tuple(name for name in names if name not in _GREASE)


# Section 2: {0x0A,0x0A}, {0x1A,0x1A} up to {0xFA,0xFA}.
_GREASE = frozenset(bytes((high << 4 | 0x0A,)) * 2 for high in range(16))
