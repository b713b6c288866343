"""Records what the programs' queues take, while real clients of many kinds ask real servers.

    LAB_NAME=NAME python -m tests.fuzz.record

Needs root and a lab that is up; writes tests/fuzz/captures/*.pcap. The kernel's NFLOG target copies
the packets that the programs' own rules queue, and tcpdump writes them down.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e import web
from tests.e2e.lab import BRIDGE1, SERVER1, VIP, Lab, until
from tests.fuzz.recorded import CAPTURES, write

GROUP = "5"
QUEUED = {  # host -> rules of what its program takes
    "balancer": [("PREROUTING", f"-d {VIP} -p tcp --dport 80")],
    "backend1": [
        ("PREROUTING", f"-d {BRIDGE1} -p tcp --dport 80 -m dscp --dscp 1"),
        ("OUTPUT", f"-s {SERVER1} -p tcp --sport 80"),
    ],
}
PROGRAMS = {"balancer": "balancer", "backend1": "packetbridge"}
PAYLOAD_TLV = 9


@contextmanager
def recording(lab: Lab, host: str) -> Iterator[None]:
    file = Path(tempfile.mkdtemp()) / "nflog.pcap"
    tcpdump = lab.command(host, "tcpdump", "-i", f"nflog:{GROUP}", "-U", "-w", str(file))
    raw = ("iptables", "-w", "-t", "raw")
    rules = [
        (hook, [*match.split(), "-j", "NFLOG", "--nflog-group", GROUP])
        for hook, match in QUEUED[host]
    ]
    with subprocess.Popen(tcpdump, stderr=subprocess.DEVNULL) as process:
        until(lambda: file.exists() and file.stat().st_size, 5, "tcpdump records")
        for hook, rule in rules:
            lab.run(host, *raw, "-I", hook, "1", *rule)
        try:
            yield
        finally:
            for hook, rule in rules:
                lab.run(host, *raw, "-D", hook, *rule)
            time.sleep(0.5)
            process.terminate()
    packets = _packets(file.read_bytes())
    write(CAPTURES / f"{PROGRAMS[host]}.pcap", packets)
    print(f"{host}: {len(packets)} packets")


def _packets(data: bytes) -> list[bytes]:
    """From a pcap file of LINKTYPE_NFLOG: a header of 4 bytes, then TLVs."""
    at, packets = 24, []
    while at < len(data):
        (length,) = struct.unpack_from("<8xI", data, at)
        record, at = data[at + 20 : at + 20 + length], at + 16 + length
        while record:
            size, kind = struct.unpack_from("<HH", record)
            if kind == PAYLOAD_TLV:
                packets.append(record[4:size])
            record = record[size + 3 & ~3 :]
    return packets


def ask(lab: Lab) -> None:
    """Clients of many kinds."""
    path = lab.path_for("1k", "backend1")
    for options in (
        ["-I"],
        ["-0"],
        ["-H", "Cookie: " + "c" * 5000],
        ["--next", f"http://{VIP}{path}"],
    ):
        lab.curl(path, *options)
    settings = (
        {},
        {"net_ipv4_tcp_timestamps": 0},
        {"net_ipv4_tcp_sack": 0, "net_ipv4_tcp_window_scaling": 0},
    )
    for setting in settings:
        with lab.sysctl("client", **setting):
            lab.curl(path)
            with lab.connect() as tcp:
                for _ in range(3):
                    tcp.sendall(web.request(path))
                    web.response(tcp)
    _by_hand(lab, [b"GET ", path.encode(), b" HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n"])
    _by_hand(lab, [f"GET {path} HTTP/1.0\r\n\r\n".encode()], half_close=True)
    _by_hand(lab, [b"\x16\x03\x01\x00\xc8\x01" + bytes(195)])
    _by_hand(lab, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
    _by_hand(lab, [])
    with lab.connect() as tcp:
        tcp.sendall(web.request(lab.path_for("100k", "backend1")))
        tcp.recv(1000)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _by_hand(lab: Lab, parts: list[bytes], half_close: bool = False) -> None:
    with lab.connect() as tcp:
        try:
            for part in parts:
                tcp.sendall(part)
                time.sleep(0.1)
            if half_close:
                tcp.shutdown(socket.SHUT_WR)
            if parts:
                tcp.recv(4096)
        except ConnectionError:
            pass  # what cannot be read is reset


if __name__ == "__main__":
    lab = Lab("nfqueue")
    CAPTURES.mkdir(exist_ok=True)
    with lab.no_offloads(), ExitStack() as stack:
        for host in QUEUED:
            stack.enter_context(recording(lab, host))
        ask(lab)
