"""Sends packets made beforehand from the client of the lab, at a rate: a flood, or a steady drip.

A process of its own, so that what the test does meanwhile does not slow it:

    python -m tests.e2e.flooding LINK_ADDRESS RATE SECONDS

Reads the packets from its input, each behind its length (2 bytes), and sends them round and round
to the interface with that address, so many a second (0: as fast as it can). Prints "ready" before
it begins and how many packets it sent in how many seconds at the end; SIGTERM ends it earlier.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from types import FrameType

from tests.e2e.lab import CLIENT, ROOT, Lab

PAUSE = 0.0005  # seconds between two bursts: 10 packets of 20,000 a second
LONGEST_PAUSE = 0.1
BURST = 64  # packets at most between two looks at the clock
SPOOFED = "10.0.0.0/8"  # what a flood's sources are taken from


@dataclass
class Flood:
    """How many packets were sent, in how many seconds; known once the flood is over."""

    sent: int = 0
    seconds: float = 0

    @property
    def rate(self) -> float:
        return self.sent / self.seconds


@contextmanager
def flooding(
    lab: Lab, packets: Iterable[bytes], rate: float, seconds: float, to: str = "balancer"
) -> Iterator[Flood]:
    """Packets to a host's interface, so many a second, ``seconds`` long or for as long as the
    block takes."""
    address = lab.link_address(to).hex()
    sender = [sys.executable, "-m", "tests.e2e.flooding", address, str(rate), str(seconds)]
    flood = Flood()
    with subprocess.Popen(
        lab.command("client", *sender), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(encode(packets))
            process.stdin.close()
            assert process.stdout.readline() == b"ready\n"
            yield flood
        finally:
            process.terminate()
        sent, took = process.stdout.read().split()
        flood.sent, flood.seconds = int(sent), float(took)


@contextmanager
def spoofed_sources_routed(lab: Lab, *hosts: str) -> Iterator[None]:
    """Answers to a flood's sources go to the client, which drops them: on the link itself they
    would fill the neighbour table."""
    try:
        for host in hosts:
            lab.run(host, "ip", "route", "add", SPOOFED, "via", CLIENT)
        yield
    finally:
        for host in hosts:
            lab.run(host, "ip", "route", "delete", SPOOFED, check=False)


def encode(packets: Iterable[bytes]) -> bytes:
    """What the process reads."""
    return b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)


def decode(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def send(packets: list[bytes], address: bytes, rate: float, seconds: float) -> tuple[int, float]:
    """Send until the time is over; how many packets that were, in how many seconds."""
    stopped: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        stopped.append(signum)

    signal.signal(signal.SIGTERM, stop)
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind(("eth0", 0x0800))
    header = address + out.getsockname()[4] + b"\x08\x00"
    endless = cycle([header + packet for packet in packets])
    print("ready", flush=True)
    sent, started = 0, time.monotonic()
    while (passed := time.monotonic() - started) < seconds and not stopped:
        due = BURST if not rate else min(int(passed * rate) - sent, BURST)
        if due <= 0:
            next_due = (sent + 1) / rate - passed
            time.sleep(min(max(next_due, PAUSE), LONGEST_PAUSE))
        for _ in range(due):
            out.send(next(endless))
        sent += max(due, 0)
    return sent, time.monotonic() - started


def main() -> None:
    address = bytes.fromhex(sys.argv[1].replace(":", ""))
    packets = list(decode(sys.stdin.buffer.read()))
    print(*send(packets, address, float(sys.argv[2]), float(sys.argv[3])), flush=True)


if __name__ == "__main__":
    main()
