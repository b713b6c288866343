"""Records the ClientHellos that real clients send.

    python -m tests.hellos.record [NAME...]

Needs curl, openssl and gnutls-cli, and for some names firefox-esr and chromium; for OpenSSL 3.5 and
later Python's pyopenssl, which brings one along. Writes tests/hellos/*.bin: what a client has sent
when it waits for an answer. Nothing is answered; all connections are within this machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
NAME = "a.example"
QUIET = 0.3  # seconds without more: it waits
PATIENCE = 30.0  # until a client connects: a browser has to start
S_CLIENT = ["openssl", "s_client", "-connect", "127.0.0.1:{port}"]
CURL = ["curl", "-sk", "-m", "5", "--resolve", f"{NAME}:{{port}}:127.0.0.1"]
MANY = ",".join(f"protocol-{n}" for n in range(40))
URL = f"https://{NAME}:{{port}}/"
GNUTLS = ["gnutls-cli", "--insecure", "--port={port}", "127.0.0.1"]
PYOPENSSL = """
import socket
from OpenSSL import SSL
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
context.set_alpn_protos([b"h2", b"http/1.1"])
connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", {port})))
connection.set_tlsext_host_name(b"a.example")
connection.set_connect_state()
connection.do_handshake()
"""
FIREFOX = """
user_pref("network.dns.forceResolve", "127.0.0.1");
user_pref("network.proxy.type", 0);
user_pref("network.http.http3.enable", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.normandy.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""
CHROMIUM = [
    "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--no-first-run",
    "--user-data-dir={directory}", "--host-resolver-rules=MAP a.example 127.0.0.1",
]  # fmt: skip
CLIENTS = {
    "curl": [*CURL, URL],
    "curl-http11": [*CURL, "--http1.1", URL],
    "curl-tls12": [*CURL, "--tls-max", "1.2", URL],
    "curl-tls12-no-alpn": [*CURL, "--tls-max", "1.2", "--no-alpn", URL],
    "curl-address": ["curl", "-sk", "-m", "5", "https://127.0.0.1:{port}/"],
    "openssl": [*S_CLIENT, "-servername", NAME],
    "openssl-alpn": [*S_CLIENT, "-servername", NAME, "-alpn", "h2,http/1.1"],
    "openssl-noservername": [*S_CLIENT, "-noservername"],
    "openssl-tls1": [*S_CLIENT, "-tls1", "-cipher", "ALL:@SECLEVEL=0", "-servername", NAME],
    "openssl-dot": [*S_CLIENT, "-servername", "A.Example."],
    "openssl-address": [*S_CLIENT, "-servername", "127.0.0.1"],
    "openssl-records": [*S_CLIENT, "-servername", NAME, "-max_send_frag", "512", "-alpn", MANY],
    "openssl-pq": [sys.executable, "-c", PYOPENSSL],
    "gnutls": [*GNUTLS, f"--sni-hostname={NAME}", "--alpn=h2", "--alpn=http/1.1"],
    "gnutls-tls12": [*GNUTLS, f"--sni-hostname={NAME}", "--priority=NORMAL:-VERS-TLS1.3"],
    "gnutls-no-sni": [*GNUTLS, "--disable-sni"],
    "firefox": ["firefox-esr", "--headless", "--no-remote", "--profile", "{directory}", URL],
    "chromium": [*CHROMIUM, URL],
}


def recorded(command: list[str]) -> bytes:
    """What a client sends first; it connects to {port}, and may write to {directory}."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as scrap:
        server.settimeout(PATIENCE)
        (Path(scrap) / "user.js").write_text(FIREFOX)
        port = str(server.getsockname()[1])
        line = [word.replace("{port}", port).replace("{directory}", scrap) for word in command]
        with _running(line, {"HOME": scrap}):
            tcp, _ = server.accept()
            with tcp:
                return _said(tcp)


def _said(tcp: socket.socket) -> bytes:
    tcp.settimeout(PATIENCE)
    data = tcp.recv(65536)
    tcp.settimeout(QUIET)
    with contextlib.suppress(TimeoutError):
        while more := tcp.recv(65536):
            data += more
    return data


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """With all processes that it starts itself."""
    with subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    for name in sys.argv[1:] or CLIENTS:
        data = recorded(CLIENTS[name])
        (HERE / f"{name}.bin").write_bytes(data)
        print(f"{name}: {len(data)} bytes", flush=True)
