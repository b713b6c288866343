"""What was seen from here, a line for each step."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.program.probe.seen import Seen
from common.adapters.datagram_exchange import Exchanged
from common.adapters.exchange import Failure
from common.adapters.greeting import Greeting
from common.adapters.http_exchange import Request
from common.adapters.tls_exchange import Shaken
from common.program.examination import Line, Verdict

SHOWN = 72  # characters of what a server says


def lines(seen: Seen) -> Iterator[Line]:
    made = seen.made
    ends = f"{made.client} to {seen.wanted.service}"
    if made.datagram is not None:
        yield from _datagram(ends, len(seen.wanted.send), made.datagram)
        return
    if made.handshake is None:
        yield Line(Verdict.NOT_OK, "handshake", f"{ends}: {made.words}")
        return
    whose = ", with the server" if seen.carries == "SYN" else ""
    yield Line(Verdict.OK, "handshake", f"{ends}: {_ms(made.handshake)}{whose}")
    if made.tls is not None:
        yield from _tls(seen, made.tls)
    if made.request is not None:
        yield from _request("request", "response", made.request)
    if made.again is not None:
        yield from _request("request again", "response again", made.again)
    if made.greeting is not None:
        yield _greeting(seen, made.greeting)


def _request(asked: str, answered: str, made: Request) -> Iterator[Line]:
    if made.acknowledged is None:
        yield _unacknowledged(asked, made)
        return
    yield Line(Verdict.OK, asked, f"acknowledged after {_ms(made.acknowledged)}{_repeated(made)}")
    if made.failure is None and made.first_byte is not None and made.whole is not None:
        first, whole = _ms(made.first_byte), _ms(made.whole)
        found = f"status {made.status}, first byte after {first}, {made.size} bytes after {whole}"
        yield Line(Verdict.OK, answered, found)
        return
    so_far = f" after {made.size} bytes" if made.first_byte is not None else ""
    yield Line(Verdict.NOT_OK, answered, f"{made.words}{so_far}")


def _tls(seen: Seen, made: Shaken) -> Iterator[Line]:
    """The certificate is the server's own; who gives it is not on trial here, unless the words say
    by whom it must be signed."""
    if made.acknowledged is None:
        yield _unacknowledged("TLS hello", made)
        return
    found = f"acknowledged after {_ms(made.acknowledged)}{_repeated(made)}"
    yield Line(Verdict.OK, "TLS hello", found)
    if made.whole is None:
        yield Line(Verdict.NOT_OK, "TLS handshake", made.words)
        return
    yield Line(
        Verdict.OK, "TLS handshake", f"{made.version}, {made.cipher} after {_ms(made.whole)}"
    )
    name, misfit = seen.wanted.name, seen.made.misfit
    if misfit == "":
        yield Line(Verdict.OK, "certificate", f"fits {name}")
    elif misfit is not None:
        expected = seen.wanted.authorities is not None
        verdict = Verdict.NOT_OK if expected else Verdict.WARNING
        found = f"does not fit {name}: {misfit}; what follows is without looking at it"
        yield Line(verdict, "certificate", found)


def _greeting(seen: Seen, heard: Greeting) -> Line:
    if heard.first_byte is not None:
        found = f"{shown(heard.data)} after {_ms(heard.first_byte)}"
        return Line(Verdict.OK, "greeting", found)
    if heard.failure is not Failure.SILENCE:
        return Line(Verdict.NOT_OK, "greeting", heard.words)
    patience = f"{seen.wanted.patience:g} s"
    if seen.carries == "SYN":
        found = f"none within {patience}: this server waits for its client to speak, or is slow"
        return Line(Verdict.OK, "greeting", found)
    scheme = "https" if seen.inspect == "tls" else "http"
    found = (
        f"none within {patience}: the balancer waits for the client to speak (inspect = "
        f'"{seen.inspect}"), and no server was asked; right would be {scheme}://'
    )
    return Line(Verdict.NOT_JUDGED, "greeting", found)


def _datagram(ends: str, size: int, made: Exchanged) -> Iterator[Line]:
    if made.failure in (Failure.NO_ROUTE, Failure.LOCAL):
        yield Line(Verdict.NOT_OK, "datagram", f"{ends}: {made.words}")
        return
    yield Line(Verdict.OK, "datagram", f"{ends}: {size} bytes")
    if made.answered is None:
        yield Line(Verdict.NOT_OK, "answer", made.words)
        return
    found = f"{len(made.data)} bytes after {_ms(made.answered)}: {shown(made.data)}"
    yield Line(Verdict.OK, "answer", found)


def _unacknowledged(asked: str, made: Request | Shaken) -> Line:
    found = f"never acknowledged: {made.words}{_repeated(made)}"
    return Line(Verdict.NOT_OK, asked, found)


def _repeated(made: Request | Shaken) -> str:
    return f", sent {made.repeated} times more" if made.repeated else ""


def shown(data: bytes) -> str:
    """The first line of a text in quotes, or else its first bytes in hexadecimal."""
    line = data.partition(b"\n")[0].rstrip(b"\r")
    if line.isascii() and line.decode("ascii").isprintable():
        text = line.decode("ascii")
        return f"'{text[:SHOWN]}'" + "..." * (len(text) > SHOWN)
    return data[: SHOWN // 3].hex(" ") + " ..." * (len(data) > SHOWN // 3)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
