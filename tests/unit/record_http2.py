"""Records what real clients send first when they take a server to speak HTTP/2 without TLS.

    python -m tests.unit.record_http2

Needs Debian's curl, nghttp2-client and nodejs; writes tests/unit/http2_recordings/*.bin. No server
answers: what is recorded is what the balancer has to choose by. Browsers are not among the clients,
since none speaks HTTP/2 without TLS.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection

RECORDINGS = Path(__file__).parent / "http2_recordings"
SILENCE = 0.7  # seconds after which a client waits for an answer
CURL = ("curl", "-s", "--noproxy", "*", "--http2-prior-knowledge")
NODE = """
const client = require("node:http2").connect("http://AT");
client.request({":path": "/node?q", "cookie": ["a=1", "b=2"]}).end();
"""

# Each client asks AT, the address and port.
COMMANDS: dict[str, tuple[str, ...]] = {
    "curl": (*CURL, "-b", "a=1; b=2", "http://AT/curl/path?q=1"),
    "curl_post": (*CURL, "-H", "Host: www.example", "-d", "x=1", "http://AT/curl/post"),
    "nghttp": ("nghttp", "http://AT/nghttp/1?q", "http://AT/nghttp/2"),
    "nghttp_padded": ("nghttp", "-b", "64", "-H", ":authority: www.example", "http://AT/padded"),
    "nghttp_no_table": ("nghttp", "--encoder-header-table-size=0", "http://AT/no/table"),
    "nghttp_continued": ("nghttp", "--continuation", "http://AT/continued"),
    "nghttp_no_priority": ("nghttp", "--no-dep", "http://AT/no/dep"),
    "h2load": ("h2load", "-n", "3", "-c", "1", "-m", "3", "http://AT/h2load"),
    "node": ("node", "-e", NODE),
}


def recorded(ask: Callable[[str], subprocess.Popen[bytes]]) -> bytes:
    """What a client sends until it is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = ask(f"127.0.0.1:{listener.getsockname()[1]}")
        tcp, _ = listener.accept()
        tcp.settimeout(SILENCE)
        data = b""
        try:
            while part := tcp.recv(65536):
                data += part
        except TimeoutError:
            pass
        client.kill()
        client.wait()
        tcp.close()
    return data


def by_command(command: tuple[str, ...]) -> Callable[[str], subprocess.Popen[bytes]]:
    def ask(at: str) -> subprocess.Popen[bytes]:
        words = [word.replace("AT", at) for word in command]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return ask


def by_h2() -> bytes:
    """Python's h2, as httpx uses it; with cookies as RFC 9113 section 8.2.3 has them split."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding=False))
    connection.initiate_connection()
    pseudo = [(":method", "PUT"), (":authority", "h2.test:8080"), (":scheme", "http")]
    cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]
    connection.send_headers(1, [*pseudo, (":path", "/h2"), *cookies], end_stream=True)
    data: bytes = connection.data_to_send()
    return data


def main() -> None:
    RECORDINGS.mkdir(exist_ok=True)
    found = {name: recorded(by_command(command)) for name, command in COMMANDS.items()}
    for name, data in {**found, "python_h2": by_h2()}.items():
        (RECORDINGS / f"{name}.bin").write_bytes(data)
        print(f"{name}: {len(data)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
