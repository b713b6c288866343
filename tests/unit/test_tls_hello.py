"""The ClientHello: real ones, cut in every way; malformed ones by literal cases; properties."""

from __future__ import annotations

import re
import timeit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.core.request.tls.client_hello import ClientHello, Inspection, inspect
from balancer.core.request.tls.synthetic import client_hello
from balancer.core.request.verdict import Bad, NeedMore, Reason
from tests.hellos.recorded import HELLOS, REFUSED, SAYS
from tests.unit import tls_model
from tests.unit.tls_model import GREASE, Hello, alpn, extension, record, records, sni, vector

LIMIT = 16384
PLAIN = bytes(Hello())
A = ClientHello(b"a.example", ())
real = pytest.mark.parametrize("name", SAYS)


def read(data: bytes, limit: int = LIMIT) -> Inspection:
    return inspect(data, limit)


def reason(data: bytes, limit: int = LIMIT) -> Reason | None:
    """Why it is a bad one; None where it is not, or not yet."""
    answer = read(data, limit)
    return answer.reason if isinstance(answer, Bad) else None


def is_awaited(data: bytes, whole: int) -> None:
    """More is needed of a hello that has ``whole`` bytes: at least one, and not too many."""
    answer = read(data)
    assert isinstance(answer, NeedMore), answer
    assert answer.until <= whole
    assert answer.until > len(data) or not answer.until


# --- real ones ------------------------------------------------------------------------------------


@real
def test_what_a_client_says(name: str) -> None:
    assert read(HELLOS[name]) == ClientHello(*SAYS[name])


def test_what_the_recorded_ones_show() -> None:
    """Else the tests with them would show less than they say."""
    found = {name: tls_model.extensions(tls_model.contents(HELLOS[name])) for name in SAYS}
    for name in ("firefox", "chromium", "openssl-pq"):
        groups = tls_model.X25519MLKEM768.to_bytes(2, "big")
        assert groups + (1216).to_bytes(2, "big") in found[name][tls_model.KEY_SHARE]
        assert len(HELLOS[name]) > 1500, "more than a segment"
    assert all(tls_model.ECH in found[name] for name in ("firefox", "chromium"))
    assert len([kind for kind in found["chromium"] if kind in GREASE]) == 2
    assert HELLOS["openssl-records"][5 + 512] == 22, "the second record"


@real
def test_scapy_reads_the_same(name: str) -> None:
    from scapy.layers.tls.handshake import TLSClientHello  # noqa: PLC0415 - takes a second

    hello = TLSClientHello(tls_model.contents(HELLOS[name]))
    by_kind = {each.type: each for each in hello.ext or ()}
    names = [each.servername for each in by_kind[0].servernames] if 0 in by_kind else [b""]
    protocols = [each.protocol for each in by_kind[16].protocols] if 16 in by_kind else []
    answer = read(HELLOS[name])
    assert isinstance(answer, ClientHello)
    assert [each.lower().removesuffix(b".") for each in names] == [answer.name]
    assert tuple(protocols) == answer.protocols


@real
def test_byte_by_byte(name: str) -> None:
    """As long as one lacks, more is needed; then it is decided, and stays."""
    data = HELLOS[name]
    for end in range(len(data)):
        is_awaited(data[:end], len(data))
    for more in (b"", b"\x14\3\3\0\1\1", b"\x15", b"?" * 99):
        assert read(data + more) == ClientHello(*SAYS[name])


@real
def test_in_two_records_wherever_they_are_cut(name: str) -> None:
    message = tls_model.contents(HELLOS[name])
    for cut in range(1, len(message)):
        assert read(records(message, [cut])) == ClientHello(*SAYS[name])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_in_many_small_records(size: int) -> None:
    for name in ("curl", "chromium", "gnutls-no-sni"):
        message = tls_model.contents(HELLOS[name])
        data = records(message, range(size, len(message), size))
        assert read(data) == ClientHello(*SAYS[name])
        for end in range(0, len(data), 7):
            is_awaited(data[:end], len(data))


def test_an_address_is_no_name() -> None:
    assert reason(HELLOS[REFUSED]) is Reason.BAD_SERVER_NAME


def test_it_is_read_quickly() -> None:
    """Some 6 microseconds for 1.9 kB; the bound is for a machine that does other things, too."""
    data = HELLOS["firefox"]
    assert min(timeit.repeat(lambda: read(data), number=200, repeat=5)) / 200 < 100e-6


# --- what is refused ------------------------------------------------------------------------------

WHOLE = Hello().message()
LONG = Hello([sni(b"a.example"), extension(21, bytes(20_000))]).message()


@pytest.mark.parametrize(
    ("data", "why", "at"),
    [
        # what is no record of a handshake, and with which byte that is certain
        (b"GET / HTTP/1.1\r\n\r\n", Reason.PLAIN_HTTP, 5),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", Reason.PLAIN_HTTP, 9),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", Reason.PLAIN_HTTP, 5),
        (b"CONNECT a.example:443 HTTP/1.1\r\n", Reason.PLAIN_HTTP, 9),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason.PLAIN_HTTP, 5),
        (b"get / HTTP/1.1\r\n\r\n", Reason.NOT_TLS, 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.NOT_TLS, 4),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Reason.NOT_TLS, 18),
        (b"\0", Reason.NOT_TLS, 1),
        (b"\r\n", Reason.NOT_TLS, 1),
        (b"\x80\x2e\x01\x03\x01", Reason.SSLV2_HELLO, 3),
        (b"\x80\x2e\x04\x03\x01", Reason.NOT_TLS, 3),
        (b"\xff\xff\xff\xff", Reason.NOT_TLS, 3),
        (b"\x15\3\1\0\2\2\x28", Reason.TLS_ALERT, 1),
        (b"\x14\3\3\0\1\1", Reason.TLS_RECORD_TYPE, 1),
        (b"\x17\3\3\0\1\1", Reason.TLS_RECORD_TYPE, 1),
        (b"\x16\2\1\0\1\1", Reason.TLS_RECORD_VERSION, 2),
        (record(b""), Reason.TLS_RECORD_LENGTH, 5),
        (b"\x16\3\1\x40\1\1", Reason.TLS_RECORD_LENGTH, 5),
        # records after the first
        (record(WHOLE[:9]) + b"\x15\3\1\0\2\2\x28", Reason.TLS_ALERT, 15),
        (record(WHOLE[:9]) + b"\x17\3\3\0\1\1", Reason.TLS_RECORD_TYPE, 15),
        (record(WHOLE[:9]) + b"GET / ", Reason.TLS_RECORD_TYPE, 15),
        (record(WHOLE[:9]) + b"\x16\4\1\0\1\1", Reason.TLS_RECORD_VERSION, 16),
        (record(WHOLE[:9]) + record(b"") + record(WHOLE[9:]), Reason.TLS_RECORD_LENGTH, 19),
        (record(WHOLE[:1]) + b"\x16\3\3\xff\xff" + WHOLE[1:], Reason.TLS_RECORD_LENGTH, 11),
        # what the handshake begins with
        (record(b"\2" + WHOLE[1:]), Reason.NO_CLIENT_HELLO, 6),
        (record(b"\0\0\0\0"), Reason.NO_CLIENT_HELLO, 6),  # hello_request
        (record(b"\1\0\0\0"), Reason.BAD_CLIENT_HELLO, 9),
        (record(b"\1" + vector(3, bytes(34))), Reason.BAD_CLIENT_HELLO, 9),
        (bytes(Hello(session=bytes(33))), Reason.BAD_CLIENT_HELLO, 44),
        (bytes(Hello(suites=b"")), Reason.BAD_CLIENT_HELLO, 78),
        (bytes(Hello(suites=b"123")), Reason.BAD_CLIENT_HELLO, 78),
        (bytes(Hello(compression=b"")), Reason.BAD_CLIENT_HELLO, 85),
        (record(b"\1" + vector(3, WHOLE[4:76] + b"\0\0")), Reason.BAD_CLIENT_HELLO, 78),
        (record(b"\1" + vector(3, WHOLE[4:86])), Reason.BAD_CLIENT_HELLO, 88),
        (record(b"\1" + vector(3, WHOLE[4:], b"\0")), Reason.BAD_CLIENT_HELLO, 88),
        (record(b"\1" + vector(3, WHOLE[4:81], b"\0")), Reason.BAD_CLIENT_HELLO, 85),
        (bytes(Hello([b"\0\x17\0"])), Reason.BAD_CLIENT_HELLO, 88),
        (bytes(Hello([b"\0\x17\0\1"])), Reason.BAD_CLIENT_HELLO, 92),
        # extensions
        (bytes(Hello([extension(23), extension(23)])), Reason.REPEATED_EXTENSION, 96),
        (bytes(Hello([sni(b"a"), sni(b"a")])), Reason.REPEATED_EXTENSION, 102),
        (bytes(Hello([extension(0)])), Reason.BAD_SERVER_NAME, 92),
        (bytes(Hello([extension(0, b"\0\0")])), Reason.BAD_SERVER_NAME, 94),
        (bytes(Hello([extension(0, b"\0" * 300)])), Reason.BAD_SERVER_NAME, 92),
        (bytes(Hello([sni(b"a", b"b")])), Reason.BAD_SERVER_NAME, 102),
        (bytes(Hello([sni(b"a", kind=1)])), Reason.BAD_SERVER_NAME, 98),
        (bytes(Hello([extension(0, vector(2, b"\0\0\2a"))])), Reason.BAD_SERVER_NAME, 98),
        (bytes(Hello([extension(0, vector(2, b"\0\0\1a"), b"?")])), Reason.BAD_SERVER_NAME, 99),
        (bytes(Hello([alpn()])), Reason.BAD_ALPN, 94),
        (bytes(Hello([alpn(b"h2", b"")])), Reason.BAD_ALPN, 98),
        (bytes(Hello([extension(16)])), Reason.BAD_ALPN, 92),
        (bytes(Hello([extension(16, b"\0\4\3h2")])), Reason.BAD_ALPN, 97),
        (bytes(Hello([extension(16, b"\0\3\3h2")])), Reason.BAD_ALPN, 97),
        # what cannot end in time
        (records(LONG, [16384]), Reason.HEAD_TOO_LONG, 9),
        (record(b"\1\xff\xff\xff"), Reason.HEAD_TOO_LONG, 9),
    ],
)
def test_what_is_refused(data: bytes, why: Reason, at: int) -> None:
    assert reason(data) is why
    for end in range(len(data)):
        assert reason(data[:end]) is (None if end < at else why), end


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"a..b",
        b".a",
        b"a.b..",
        b"a b",
        b"a:443",
        b"a\0b",
        b"a\n",
        b"*.a",
        b"b\xc3\xbccher.example",
        b"192.0.2.1",
        b"1",
        b"a.1",
        b"[::1]",
        b"2001:db8::1",
        b"a" * 64,
        b".".join([b"a" * 63] * 4),
    ],
)
def test_what_is_no_name(name: bytes) -> None:
    assert reason(bytes(Hello([sni(name)]))) is Reason.BAD_SERVER_NAME


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"a.example", b"a.example"),
        (b"WWW.Example.COM", b"www.example.com"),
        (b"a.example.", b"a.example"),
        (b"localhost", b"localhost"),
        (b"_dmarc.a", b"_dmarc.a"),
        (b"r1---sn-a-.a", b"r1---sn-a-.a"),
        (b"xn--bcher-kva.example", b"xn--bcher-kva.example"),
        (b"1.a", b"1.a"),
        (b"1.2a", b"1.2a"),
        (b"1.2-", b"1.2-"),
        (b"a" * 63, b"a" * 63),
        (b".".join([b"a" * 63] * 3 + [b"a" * 61, b""]), b".".join([b"a" * 63] * 3 + [b"a" * 61])),
    ],
)
def test_names(said: bytes, name: bytes) -> None:
    assert read(bytes(Hello([sni(said)]))) == ClientHello(name, ())


def test_a_hello_without_extensions() -> None:
    assert read(bytes(Hello(None))) == ClientHello(b"", ())
    assert read(bytes(Hello([]))) == ClientHello(b"", ())
    assert reason(bytes(Hello(None))[:-1]) is None


def test_grease_is_not_offered() -> None:
    protocols = [code.to_bytes(2, "big") for code in GREASE]
    hello = Hello([alpn(*protocols, b"h2"), *(extension(code) for code in GREASE)])
    assert read(bytes(hello)) == ClientHello(b"", (b"h2",))


def test_the_hello_must_end_within_the_limit() -> None:
    size = len(PLAIN)
    assert read(PLAIN, size) == A
    assert reason(PLAIN, size - 1) is Reason.HEAD_TOO_LONG
    assert read(PLAIN + b"?", size) == A
    assert reason(PLAIN[:9], size - 1) is Reason.HEAD_TOO_LONG, "certain with its length"
    assert isinstance(read(PLAIN[:9], size), NeedMore)
    two = records(WHOLE, [20])
    assert read(two, size + 5) == A
    assert reason(two, size + 4) is Reason.HEAD_TOO_LONG
    assert reason(b"\x16\3\1", 3) is Reason.HEAD_TOO_LONG
    assert reason(b"", 0) is Reason.HEAD_TOO_LONG
    large = records(LONG, [16384])
    assert read(large, 65535) == A
    assert reason(large[:9], len(large) - 1) is Reason.HEAD_TOO_LONG, "two records' headers"


def test_what_somebody_asks_about_is_read() -> None:
    assert read(client_hello("A.example", ["h2", "x"])) == ClientHello(b"a.example", (b"h2", b"x"))
    assert read(client_hello("")) == ClientHello(b"", ())
    assert reason(client_hello("a b")) is Reason.BAD_SERVER_NAME


# --- properties -----------------------------------------------------------------------------------

labels = st.from_regex(rb"[a-z0-9_-]{0,20}[a-z_]", fullmatch=True)
GREASE_ALPN = re.compile(rb"\x02(.)\1")
names = st.lists(labels, min_size=1, max_size=5).map(b".".join)
protocols = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6)
kinds = st.integers(0, 0xFFFF).filter(lambda kind: kind not in (0, 16))
others = st.lists(
    st.builds(extension, kinds, st.binary(max_size=30)), unique_by=lambda each: each[:2], max_size=6
)


@st.composite
def hellos(draw: st.DrawFn) -> tuple[Hello, ClientHello]:
    """A sound one, and what it says."""
    extensions, name, offered = draw(others), draw(st.none() | names), draw(st.none() | protocols)
    if name is not None:
        extensions.insert(draw(st.integers(0, len(extensions))), sni(name))
    if offered is not None:
        extensions.insert(draw(st.integers(0, len(extensions))), alpn(*offered))
    hello = Hello(
        extensions or draw(st.sampled_from([None, []])),
        random=draw(st.binary(min_size=32, max_size=32)),
        session=draw(st.binary(max_size=32)),
        suites=draw(st.binary(min_size=1, max_size=20)) * 2,
        compression=draw(st.binary(min_size=1, max_size=3)),
    )
    grease = {code.to_bytes(2, "big") for code in GREASE}
    said = tuple(each for each in offered or () if each not in grease)
    return hello, ClientHello(name or b"", said)


cuts = st.lists(st.integers(1, 300), max_size=8)


@given(hellos(), cuts, st.binary(max_size=20))
def test_a_sound_one_is_read_however_it_is_cut(
    made: tuple[Hello, ClientHello], cut: list[int], behind: bytes
) -> None:
    hello, said = made
    data = records(hello.message(), cut)
    assert read(data + behind) == said
    for end in range(len(data)):
        is_awaited(data[:end], len(data))


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """One in which something is changed, and perhaps something else in its place."""
    hello, _ = draw(hellos())
    data = bytearray(records(hello.message(), draw(cuts)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        if draw(st.booleans()):
            data[at] = draw(st.sampled_from([0, 1, 2, 3, 16, 20, 21, 22, 64, 127, 128, 255]))
        else:
            data[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(data)


starts = st.one_of(spoiled(), st.binary(max_size=60), st.sampled_from(sorted(HELLOS.values())))


@given(starts, st.sampled_from([LIMIT, LIMIT, 1, 9, 60, 100, 200]))
@example(bytes(Hello([sni(b"a"), sni(b"a")])), LIMIT)
def test_an_answer_is_final(data: bytes, limit: int) -> None:
    """Byte by byte, never raises; once decided, decided the same for ever; and not before
    ``until``."""
    before: Inspection = NeedMore()
    for end in range(min(len(data), 400) + 1):
        answer = read(data[:end], limit)
        assert isinstance(answer, (NeedMore, Bad, ClientHello))
        if not isinstance(before, NeedMore):
            assert answer == before
        elif isinstance(answer, ClientHello):
            assert end >= before.until
        if isinstance(answer, NeedMore):
            assert end < limit, "whoever waits gets room for it"
        before = answer


@given(spoiled())
def test_what_is_taken_says_that(data: bytes) -> None:
    """Whatever was changed: the model reads no other name and no other protocols."""
    answer = read(data)
    if not isinstance(answer, ClientHello):
        return
    message = tls_model.contents(data)
    found = tls_model.extensions(message[: 4 + int.from_bytes(message[1:4], "big")])
    assert found.get(tls_model.SNI, b"")[5:].lower().removesuffix(b".") == answer.name
    listed = b"".join(vector(1, each) for each in answer.protocols)
    assert found.get(tls_model.ALPN, b"")[2:] == listed or GREASE_ALPN.search(found[tls_model.ALPN])
