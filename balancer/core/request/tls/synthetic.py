"""A ClientHello as a client would send it, from what somebody asks about: a name and protocols."""

from collections.abc import Sequence

from balancer.core.request.synthetic import UnsendableError


def client_hello(name: str, protocols: Sequence[str] = ()) -> bytes:
    """In one record, of TLS 1.2; without SNI if the name is "", without ALPN if there are no
    protocols. Raises UnsendableError."""
    extensions = b""
    if name:
        host = _ascii("server name", name, 1 << 13)
        entry = b"\0" + _vector(2, host)
        extensions += b"\0\0" + _vector(2, _vector(2, entry))
    if protocols:
        names = b"".join(_vector(1, _ascii("protocol", each, 255)) for each in protocols)
        extensions += b"\0\x10" + _vector(2, _vector(2, names))
    suites, compression = b"\xc0\x2f", b"\0"
    body = b"\3\3" + bytes(32) + _vector(1, b"") + _vector(2, suites) + _vector(1, compression)
    message = b"\1" + _vector(3, body + _vector(2, extensions))
    return b"\x16\3\1" + _vector(2, message)


def _ascii(what: str, text: str, most: int) -> bytes:
    if not 0 < len(text) <= most or not text.isascii():
        right = f"right would be ASCII, 1 to {most} bytes"
        raise UnsendableError(f"{what} {text[:64]!r} is wrong; {right}")
    return text.encode("ascii")


def _vector(size: int, content: bytes) -> bytes:
    """RFC 8446 section 3.4: the content behind its length, a number of so many bytes."""
    return len(content).to_bytes(size, "big") + content
