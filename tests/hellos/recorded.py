"""What clients sent first, by tests/hellos/record.py's names, and what each shows.

curl 7.88 and s_client have OpenSSL 3.0; openssl-pq is OpenSSL 4.0, gnutls 3.7, firefox 153,
chromium 156.
"""

from pathlib import Path

H2 = (b"h2", b"http/1.1")
SAYS: dict[str, tuple[bytes, tuple[bytes, ...]]] = {  # the server's name, and the protocols
    "curl": (b"a.example", H2),
    "curl-http11": (b"a.example", (b"http/1.1",)),
    "curl-tls12": (b"a.example", H2),
    "curl-tls12-no-alpn": (b"a.example", ()),
    "curl-address": (b"", H2),
    "openssl": (b"a.example", ()),
    "openssl-alpn": (b"a.example", H2),
    "openssl-noservername": (b"", ()),
    "openssl-tls1": (b"a.example", ()),
    "openssl-dot": (b"a.example", ()),  # asked for as A.Example.
    "openssl-records": (b"a.example", tuple(b"protocol-%d" % n for n in range(40))),
    "openssl-pq": (b"a.example", H2),
    "gnutls": (b"a.example", H2),
    "gnutls-tls12": (b"a.example", ()),
    "gnutls-no-sni": (b"", ()),
    "firefox": (b"a.example", H2),
    "chromium": (b"a.example", H2),
}
REFUSED = "openssl-address"  # an address as the name, which RFC 6066 does not permit
HELLOS = {name: Path(__file__).with_name(f"{name}.bin").read_bytes() for name in (*SAYS, REFUSED)}
