"""HTTP requests over TLS, the handshake timed as they are.

By the `ssl` module, and so by what most of the host's programs use. The name goes with it in the
clear (SNI, RFC 6066 section 3), unless it is an address, and HTTP/1.1 is what is offered (ALPN).
"""

from __future__ import annotations

import io
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from common.adapters.exchange import IN_TIME, LOOK, SHOWN, Failure, failure, words
from common.adapters.http_exchange import PIECE, HttpConnection

Context = ssl.SSLContext
ANSWERS = (Failure.NO_TLS, Failure.CERTIFICATE, Failure.CLOSED)  # of who has got the ClientHello


@dataclass(slots=True)
class Shaken:
    """A handshake of TLS: seconds since it began until the other side had ``acknowledged`` the
    ClientHello, and until it was ``whole``; None: not seen. ``version`` and ``cipher`` are what was
    agreed on, ``failure`` what prevented that, in ``words``."""

    acknowledged: float | None = None
    whole: float | None = None
    repeated: int = 0  # segments that this host's TCP sent again
    version: str = ""
    cipher: str = ""
    failure: Failure | None = None
    words: str = ""


def checking(authorities: str | None) -> Context:
    """By which a certificate must fit the name, and be signed by one of the host's authorities, or
    of those in a file; raises OSError (and so SSLError) where that has none."""
    return _offering(ssl.create_default_context(cafile=authorities))


def trusting() -> Context:
    """By which any certificate will do."""
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _offering(context)


def _offering(context: Context) -> Context:
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsConnection(HttpConnection):
    """One for a handshake, and then requests."""

    _tls: ssl.SSLSocket
    _early = b""  # of the response, read to see that it is there
    _at_end = False

    def shake(self, name: str, context: Context, patience: float) -> Shaken:
        """Shake hands, within ``patience`` seconds, with who is to have that name."""
        made = Shaken()
        begun = time.monotonic()
        before = self._repeated
        try:
            self._tcp = self._tls = context.wrap_socket(
                self._tcp, server_hostname=name, do_handshake_on_connect=False
            )
            self._shake(made, begun, begun + patience)
            self._tls.settimeout(patience)
        except OSError as error:
            made.failure, made.words = self._because(error)
            if made.acknowledged is None and made.failure in ANSWERS:
                made.acknowledged = time.monotonic() - begun
        with suppress(OSError):
            made.repeated = self._repeated - before
        return made

    def _shake(self, made: Shaken, begun: float, end: float) -> None:
        self._tls.settimeout(0)
        while (now := time.monotonic()) < end:
            with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._tls.do_handshake()
                made.whole = time.monotonic() - begun
                agreed = self._tls.cipher()
                made.version = self._tls.version() or ""
                made.cipher = "" if agreed is None else agreed[0]
            if made.acknowledged is None and (made.whole is not None or self._acknowledged):
                made.acknowledged = time.monotonic() - begun
            if made.whole is not None:
                return
            self._readable(min(LOOK, end - now))
        made.failure, made.words = Failure.SILENCE, IN_TIME

    def _answered(self, seconds: float) -> bool:
        """What is readable may be no data: a session ticket, say."""
        if not self._tls.pending() and not self._readable(seconds):
            return False
        before = self._tls.gettimeout()
        self._tls.settimeout(0)
        try:
            self._early = self._tls.recv(PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        finally:
            self._tls.settimeout(before)
        self._at_end = not self._early
        return True

    def _over(self) -> bool:
        return self._at_end

    def _stream(self) -> Any:
        return _Resumed(self._early, self._tls)

    def _because(self, error: OSError) -> tuple[Failure, str]:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failure.CERTIFICATE, error.verify_message[:SHOWN]
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return Failure.CLOSED, "closed without an answer"
        if isinstance(error, ssl.SSLError):
            return Failure.NO_TLS, (error.reason or str(error)).lower().replace("_", " ")[:SHOWN]
        return failure(error), words(error)


class _Resumed(io.RawIOBase):
    """What comes by a connection of which the first bytes have been read."""

    def __init__(self, first: bytes, tls: ssl.SSLSocket) -> None:
        self._first, self._tls = first, tls

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._first:
            return self._tls.recv_into(into)
        part = self._first[: len(into)]
        into[: len(part)] = part
        self._first = self._first[len(part) :]
        return len(part)
