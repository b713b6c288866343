"""The probe's TLS: handshakes, certificates, and requests, with a server of the tests' own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server, socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.adapters import tls_exchange
from common.adapters.exchange import Failure
from common.adapters.tls_exchange import Context, TlsConnection

NAME = "a.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for it, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(key.private_bytes(pem, *plain) + made.public_bytes(pem))
    return file


Serve = Callable[[socket], None]


@contextmanager
def served(serve: Serve) -> Iterator[TlsConnection]:
    """A connection with who does this with it, and then closes it."""

    def accept(listening: socket) -> None:
        with closing(listening.accept()[0]) as tcp, suppress(OSError):
            serve(tcp)

    with create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, args=(listening,))
        thread.start()
        with closing(TlsConnection("127.0.0.1", listening.getsockname()[1], 2)) as made:
            yield made
        thread.join(5)


def answering(file: Path, *answers: bytes) -> Serve:
    """By TLS."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve(tcp: socket) -> None:
        with context.wrap_socket(tcp, server_side=True) as tls:
            for answer in answers:
                tls.recv(65536)
                tls.sendall(answer)

    return serve


def test_a_handshake_and_two_requests(signed: Path) -> None:
    """The first bytes after a handshake are tickets, and no answer."""
    with served(answering(signed, OK + b"ab", OK + b"cd")) as made:
        shaken = made.shake(NAME, tls_exchange.checking(str(signed)), 2)
        assert (shaken.failure, shaken.version) == (None, "TLSv1.3")
        assert shaken.acknowledged is not None
        assert shaken.whole is not None
        for _ in range(2):
            got = made.get(NAME, "/", 2)
            assert (got.status, got.size, got.failure, got.reusable) == (200, 2, None, True)
            assert got.first_byte is not None
            assert got.whole is not None
            assert got.first_byte <= got.whole < 2


@pytest.mark.parametrize(("answer", "status"), [(OK + b"a", 200), (b"", 0)])
def test_an_answer_that_is_not_whole(signed: Path, answer: bytes, status: int) -> None:
    with served(answering(signed, answer)) as made:
        assert made.shake(NAME, tls_exchange.trusting(), 2).failure is None
        got = made.get(NAME, "/", 2)
    assert (got.failure, got.status) == (Failure.CLOSED, status)


def test_a_certificate_of_another_name_or_of_nobody_known(signed: Path) -> None:
    for name, context, words in (
        ("b.example", tls_exchange.checking(str(signed)), "not valid for 'b.example'"),
        (NAME, tls_exchange.checking(None), "self-signed certificate"),
    ):
        with served(answering(signed)) as made:
            shaken = made.shake(name, context, 2)
        assert shaken.failure is Failure.CERTIFICATE
        assert words in shaken.words


def http(tcp: socket) -> None:
    tcp.recv(65536)
    tcp.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def close(tcp: socket) -> None:
    tcp.recv(65536)


def wait(tcp: socket) -> None:
    while tcp.recv(65536):
        pass


@pytest.mark.parametrize(
    ("serve", "failure"),
    [(http, Failure.NO_TLS), (close, Failure.CLOSED), (wait, Failure.SILENCE)],
)
def test_a_server_without_tls(serve: Serve, failure: Failure) -> None:
    with served(serve) as made:
        shaken = made.shake(NAME, tls_exchange.trusting(), 0.3)
    assert (shaken.failure, shaken.whole) == (failure, None), shaken
    assert shaken.acknowledged is not None
    assert shaken.words
