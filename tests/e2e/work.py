"""What a client does on a bad network: a large file down, a large file up, and many short requests,
all at the same time; every byte is compared, and the servers must have had each request once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import web
from tests.e2e.lab import LAB, Lab, until

WWW = LAB / "www"
DRIBBLE = 4  # each so-manieth short request comes in parts
AT_ONCE = 48  # short requests


@dataclass(frozen=True)
class Work:
    """``path`` is what the file is fetched from, ``upload`` what it is stored as, ``short`` what
    the ``requests`` are for; all three may begin with dots that lead to a certain server."""

    file: Path
    requests: int
    path: str
    upload: str
    short: str = "/1k"


@dataclass(frozen=True)
class Done:
    """Bytes per second of the two transfers; seconds of the slowest request."""

    down: float
    up: float
    slowest: float

    def __str__(self) -> str:
        rates = f"down {self.down / 1e6:.1f} MB/s, up {self.up / 1e6:.1f} MB/s"
        return f"{rates}, slowest request {self.slowest:.1f} s"


@contextmanager
def some(size: int, requests: int) -> Iterator[Work]:
    """Work with a new file of ``size`` random bytes; it and its copy are removed afterwards."""
    file, copy = WWW / "trouble", WWW / "upload" / "trouble"
    try:
        copy.unlink(missing_ok=True)
        with file.open("wb") as content:
            for _ in range(size >> 20):
                content.write(os.urandom(1 << 20))
        yield Work(file, requests, f"/{file.name}", f"/upload/{copy.name}")
    finally:
        file.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def do(lab: Lab, work: Work, timeout: float) -> Done:
    """Do all of it, each transfer within ``timeout`` seconds, and judge it."""
    body = (WWW / "1k").read_bytes()
    before = _served()
    with ThreadPoolExecutor(3) as threads:
        down = threads.submit(lab.curl, work.path, timeout=timeout)
        up = threads.submit(lab.curl, work.upload, "-T", str(work.file), timeout=timeout)
        short = threads.submit(web.at_once, lab, work.requests, AT_ONCE, work.short, body, DRIBBLE)
    tally, fetched, stored = short.result(), down.result(), up.result()
    assert tally.failures == []
    assert len(tally.seconds) == work.requests
    original = work.file.read_bytes()
    assert fetched.status == 200
    assert _digest(fetched.body) == _digest(original)
    assert stored.status in (201, 204)
    assert _digest((WWW / "upload" / work.file.name).read_bytes()) == _digest(original)
    until(lambda: _served() - before >= work.requests + 2, 5, "the servers log every request")
    assert _served() - before == work.requests + 2, "a request was served twice"
    size = len(original)
    return Done(size / fetched.seconds, size / stored.seconds, tally.slowest)


def _served() -> int:
    """Requests that the servers have ever logged."""
    logs = (LAB / "log" / f"nginx-{host}.access.log" for host in ("backend1", "backend2"))
    return sum(log.read_bytes().count(b"\n") for log in logs)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
