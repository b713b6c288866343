"""The attempt itself: what is sent from this host, step by step, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from balancer.program.probe.wanted import HTTPS, TCP, UDP, Wanted
from common.adapters import tls_exchange
from common.adapters.datagram_exchange import DatagramExchange, Exchanged
from common.adapters.exchange import Connection, Failure
from common.adapters.greeting import GreetedConnection, Greeting
from common.adapters.http_exchange import HttpConnection, Request
from common.adapters.tls_exchange import Shaken, TlsConnection

HANDSHAKE = 3.5  # seconds: three SYNs, and the time in which the kernel gives up on a neighbour


@dataclass(frozen=True, slots=True)
class Attempt:
    """What has been seen here; None: it did not come to that. ``failure`` is of TCP's handshake, in
    ``words``; ``misfit`` says why a certificate does not fit, '' where it does. ``again`` is the
    second request on the connection."""

    client: str  # ADDRESS:PORT
    handshake: float | None = None  # seconds
    failure: Failure | None = None
    words: str = ""
    tls: Shaken | None = None
    misfit: str | None = None
    request: Request | None = None
    again: Request | None = None
    greeting: Greeting | None = None
    datagram: Exchanged | None = None

    @property
    def source(self) -> str:
        return self.client.partition(":")[0]

    @property
    def refused(self) -> bool:
        """By RST for a SYN, or by ICMP for a datagram."""
        told = self.failure if self.datagram is None else self.datagram.failure
        return told is Failure.REFUSED

    @property
    def broken(self) -> Shaken | Request | Greeting | None:
        """The step after TCP's handshake that failed. A server that waits for its client to speak
        has not."""
        for step in (self.tls, self.request, self.again, self.greeting):
            if step is None or step.failure is None:
                continue
            if not isinstance(step, Greeting) or step.failure is not Failure.SILENCE:
                return step
        return None


@contextmanager
def attempt(wanted: Wanted) -> Iterator[Attempt]:
    """Its connection is open until the end."""
    if wanted.scheme == UDP:
        with closing(DatagramExchange(wanted.vip, wanted.port)) as asking:
            made = asking.ask(wanted.send, wanted.patience)
            yield Attempt(_at(made.local), datagram=made)
    elif wanted.scheme == TCP:
        with closing(GreetedConnection(wanted.vip, wanted.port, HANDSHAKE)) as tcp:
            greeting = None if tcp.handshake is None else tcp.hear(wanted.patience)
            yield _of(tcp, greeting=greeting)
    elif wanted.scheme == HTTPS:
        with _tls(wanted) as found:
            yield found
    else:
        with closing(HttpConnection(wanted.vip, wanted.port, HANDSHAKE)) as http:
            yield _of(http, requests=_requests(http, wanted))


@contextmanager
def _tls(wanted: Wanted) -> Iterator[Attempt]:
    """A certificate that does not fit ends a connection; the attempt is another one then, which
    takes any."""
    checking = tls_exchange.checking(wanted.authorities)
    with closing(TlsConnection(wanted.vip, wanted.port, HANDSHAKE)) as first:
        shaken = _shaken(first, wanted, checking)
        if shaken is None or shaken.failure is not Failure.CERTIFICATE:
            misfit = None if shaken is None or shaken.failure is not None else ""
            requests = _requests(first, wanted, shaken)
            yield _of(first, shaken, misfit, requests)
            return
    with closing(TlsConnection(wanted.vip, wanted.port, HANDSHAKE)) as second:
        again = _shaken(second, wanted, tls_exchange.trusting())
        yield _of(second, again, shaken.words, _requests(second, wanted, again))


def _shaken(tls: TlsConnection, wanted: Wanted, context: tls_exchange.Context) -> Shaken | None:
    return None if tls.handshake is None else tls.shake(wanted.name, context, wanted.patience)


def _requests(
    http: HttpConnection, wanted: Wanted, shaken: Shaken | None = None
) -> list[Request | None]:
    """Two, as far as it comes to them."""
    if http.handshake is None or (shaken is not None and shaken.failure is not None):
        return [None, None]
    request = http.get(wanted.host, wanted.path, wanted.patience)
    if not request.reusable or request.failure is not None:
        return [request, None]
    return [request, http.get(wanted.host, wanted.path, wanted.patience)]


def _of(
    tcp: Connection,
    tls: Shaken | None = None,
    misfit: str | None = None,
    requests: list[Request | None] | None = None,
    greeting: Greeting | None = None,
) -> Attempt:
    request, again = requests or (None, None)
    return Attempt(
        _at(tcp.local),
        tcp.handshake,
        tcp.failure,
        tcp.words,
        tls,
        misfit,
        request,
        again,
        greeting,
    )


def _at(local: tuple[str, int]) -> str:
    """ADDRESS:PORT, also before there is either."""
    return f"{local[0] or '0.0.0.0'}:{local[1] or 1}"
