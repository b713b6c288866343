"""SipHash-2-4 as a function from bytes to an integer.

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (INDOCRYPT 2012). The paper ends
with a 64-bit number that its reference code stores little-endian; that number is returned here.
"""

from siphash24 import siphash24 as _SipHash  # a class: named like one on this side

KEY_SIZE = 16
"""Bytes of a SipHash key."""


def siphash24(key: bytes, data: bytes) -> int:
    """SipHash-2-4 of `data` under the 16-byte `key`: an unsigned 64-bit integer.

    Raises ValueError if the key has another length.
    """
    if len(key) != KEY_SIZE:
        # The library fills a short key with zero bytes: two keys would be one.
        raise ValueError(f"a SipHash key has {KEY_SIZE} bytes, not {len(key)}")
    # Not intdigest(): that one is signed.
    return int.from_bytes(_SipHash(data, key=key).digest(), "little")
