"""Traffic that goes on while something happens: requests to both backends, each on a connection of
its own, and long downloads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.lab import LAB, VIP, Lab, until
from tests.e2e.web import Tally, request

FILES = [f"small/{number}" for number in range(1, 65)]


class Load:
    """``tally`` grows until the load ends; failures name the file and say what happened.

    A request that takes longer than ``patience`` seconds has failed. It comes in two parts where
    there is a ``pause`` (seconds) between them."""

    def __init__(self, lab: Lab, connections: int, patience: float, pause: float) -> None:
        self.tally = Tally()
        self._connections = connections
        self._patience = patience
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=lab.inside, args=["client", lambda: asyncio.run(self._all())], daemon=True
        )

    @property
    def done(self) -> int:
        """Requests that have an outcome."""
        return len(self.tally.seconds) + len(self.tally.failures)

    def goes_on(self, requests: int, seconds: float = 30) -> None:
        """Wait until so many more have been answered well."""
        so_far = len(self.tally.seconds)
        until(
            lambda: len(self.tally.seconds) >= so_far + requests or self.tally.failures,
            seconds,
            f"{requests} more requests",
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(self._patience + 10)
        assert not self._thread.is_alive(), "the load does not end"

    async def _all(self) -> None:
        bodies = {file: (LAB / "www" / file).read_bytes() for file in FILES}
        files = itertools.cycle(FILES)
        await asyncio.gather(*(self._client(files, bodies) for _ in range(self._connections)))

    async def _client(self, files: Iterator[str], bodies: dict[str, bytes]) -> None:
        while not self._over.is_set():
            file, started = next(files), time.monotonic()
            try:
                async with asyncio.timeout(self._patience):
                    answer = await _answer(request(f"/{file}", close=True), self._pause)
            except OSError as error:
                self.tally.failures.append(f"{file}: {error!r}")
                await asyncio.sleep(0.05)
                continue
            if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(bodies[file]):
                self.tally.seconds.append(time.monotonic() - started)
            else:
                self.tally.failures.append(f"{file}: {len(answer)} bytes, {answer[:40]!r}")


async def _answer(ask: bytes, pause: float) -> bytes:
    reader, writer = await asyncio.open_connection(VIP, 80)
    try:
        if pause:
            writer.write(ask[:10])
            await asyncio.sleep(pause)
            ask = ask[10:]
        writer.write(ask)
        return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextmanager
def load(lab: Lab, connections: int = 4, patience: float = 10, pause: float = 0) -> Iterator[Load]:
    """So many requests at a time, until the context ends; those under way are then waited for."""
    running = Load(lab, connections, patience, pause)
    running.start()
    try:
        yield running
    finally:
        running.stop()


class Download:
    """One file by curl, read as it comes."""

    def __init__(self, lab: Lab, file: str, rate: str, to: str) -> None:
        file = file.lstrip("/")
        options = ["-sS", "--path-as-is", "--limit-rate", rate, "--max-time", "1000"]
        self._curl = subprocess.Popen(
            lab.command("client", "curl", *options, f"http://{to}/{file}"), stdout=subprocess.PIPE
        )
        self._file = file
        self._body = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def received(self) -> int:
        """Bytes so far."""
        return len(self._body)

    def goes_on(self, size: int, seconds: float = 30) -> None:
        """Wait until so many more bytes have come."""
        so_far = self.received
        until(lambda: self.received >= so_far + size, seconds, f"{size} more bytes")

    def arrives(self, seconds: float) -> None:
        """Wait for the end; fails the test where bytes are missing or others."""
        self._reader.join(seconds)
        assert not self._reader.is_alive(), f"{self._file}: {self.received} bytes in {seconds} s"
        assert self._curl.wait(5) == 0
        assert self._body == (LAB / "www" / self._file).read_bytes()

    def close(self) -> None:
        self._curl.kill()
        self._curl.wait()
        self._reader.join(5)

    def _read(self) -> None:
        assert self._curl.stdout is not None
        while part := self._curl.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            self._body += part


@contextmanager
def download(lab: Lab, file: str, rate: str = "4M", to: str = VIP) -> Iterator[Download]:
    """A download at so many bytes a second (a number as curl reads it), ended with the context."""
    running = Download(lab, file, rate, to)
    try:
        yield running
    finally:
        running.close()
