"""What is measured: each case makes one kind of traffic, once, and says how it went."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.contestants import Contestant
from tests.bench.hosts import LARGE, PARALLEL, Hosts

PATIENCE = 120.0  # seconds for one measurement at most
SCRIPT = "tests/bench/requests.lua"
UPLOAD = "100m"
DOWNLOADS = 4


@dataclass(frozen=True)
class Traffic:
    """``work`` (bytes or requests) done in so many seconds; latency in ms, by percentile."""

    work: float
    seconds: float
    failed: int
    latency: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.work / self.seconds


@dataclass(frozen=True)
class Case:
    """``unit`` is what a rate is shown in, ``per`` how many of the work's units it has."""

    name: str
    title: str
    unit: str
    per: float
    run: Callable[[Contestant], Traffic]


@dataclass(frozen=True)
class Sizes:
    """How much a measurement takes: bytes, seconds, files."""

    large: int
    parallel: int
    seconds: int
    uploads: int
    rounds: int


FULL = Sizes(large=1 << 30, parallel=100 << 20, seconds=3, uploads=5, rounds=5)
QUICK = Sizes(large=1 << 28, parallel=20 << 20, seconds=1, uploads=2, rounds=2)


def cases(sizes: Sizes) -> list[Case]:
    megabytes = sizes.parallel >> 20
    large = f"{sizes.large >> 20} MiB" if sizes.large < 1 << 30 else f"{sizes.large >> 30} GiB"
    close = ["-H", "Connection: close"]
    return [
        Case("download", f"one {large} download", "MB/s", 1e6, lambda c: _download(c, sizes.large)),
        Case(
            "downloads",
            f"{PARALLEL} downloads of {megabytes} MiB at once",
            "MB/s",
            1e6,
            lambda c: _downloads(c, sizes.parallel),
        ),
        Case("upload", "100 MiB uploads", "MB/s", 1e6, lambda c: _uploads(c, sizes.uploads)),
        Case(
            "keepalive32",
            "1 kB, keep-alive, 32 connections",
            "requests/s",
            1,
            lambda c: _requests(c, sizes.seconds, 32),
        ),
        Case(
            "keepalive512",
            "1 kB, keep-alive, 512 connections",
            "requests/s",
            1,
            lambda c: _requests(c, sizes.seconds, 512),
        ),
        Case(
            "connections",
            "1 kB, a new connection each, 32 at once",
            "requests/s",
            1,
            lambda c: _requests(c, sizes.seconds, 32, *close),
        ),
    ]


def _download(contestant: Contestant, size: int) -> Traffic:
    """A few, one after the other: which processor each part of one falls on is chance."""
    url, count = f"http://{contestant.targets[0]}/{LARGE}", 1 if contestant.slow else DOWNLOADS
    said = [_curl(contestant, url).communicate()[0].split() for _ in range(count)]
    failed = sum(words[:2] != ["200", f"{size}"] for words in said)
    return Traffic(count * size, sum(float(words[2]) for words in said), failed)


def _downloads(contestant: Contestant, size: int) -> Traffic:
    """Each by a curl of its own, from the first one's start to the last one's end; the servers take
    turns where no one chooses."""
    started = time.monotonic()
    running = [
        _curl(contestant, f"http://{target}/bench/{number}")
        for number, target in zip(range(1, PARALLEL + 1), itertools.cycle(contestant.targets))
    ]
    said = [process.communicate()[0].split() for process in running]
    seconds = time.monotonic() - started
    failed = sum(words[:2] != ["200", f"{size}"] for words in said)
    return Traffic(size * PARALLEL, seconds, failed)


def _uploads(contestant: Contestant, count: int) -> Traffic:
    file = contestant.lab.directory / "www" / UPLOAD
    url = f"http://{contestant.targets[0]}/upload/bench"
    said = [_curl(contestant, "-T", str(file), url).communicate()[0].split() for _ in range(count)]
    contestant.lab.run(contestant.host, "curl", "-sS", "-o", "/dev/null", "-X", "DELETE", url)
    failed = sum(words[0] not in {"201", "204"} for words in said)
    return Traffic(count * file.stat().st_size, sum(float(words[2]) for words in said), failed)


def _curl(contestant: Contestant, *arguments: str) -> subprocess.Popen[str]:
    """A curl that says the status, the bytes that it got, and the seconds it took."""
    form = "%{http_code} %{size_download} %{time_total}"
    options = ["-sS", "--max-time", f"{PATIENCE:.0f}", "-o", "/dev/null", "-w", form]
    command = contestant.lab.command(contestant.host, "curl", *options, *arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _requests(contestant: Contestant, seconds: int, connections: int, *options: str) -> Traffic:
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", SCRIPT]
    servers = contestant.targets if len(contestant.targets) > 1 else ()
    done = subprocess.run(
        contestant.lab.command(
            contestant.host, *command, *options, f"http://{contestant.targets[0]}/"
        ),
        env=os.environ | {"SERVERS": " ".join(servers)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    row = next(line for line in done.stdout.splitlines() if line.startswith("row "))
    found = json.loads(row.removeprefix("row "))
    latency = {name: found[name] for name in ("p50", "p99", "p99.9")}
    return Traffic(found["requests"], found["seconds"], found["failed"], latency)


def prepare(labs: list[Hosts], sizes: Sizes) -> None:
    """Put the files that the cases fetch where they are."""
    for lab in labs:
        lab.put_files(sizes.large, sizes.parallel)
