"""Short requests without a pause, each on a connection of its own, while something happens."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e import web
from tests.e2e.lab import LAB, VIP, Lab

TIMEOUT = 20.0  # seconds of a request
GOOD, REFUSED, RESET, CUT, HUNG = "good", "refused", "reset", "cut short", "hung"


@dataclass(frozen=True)
class Asked:
    """A request by way of ``backend``: when it began and ended (monotonic), what came of it, and
    the name by which the server's log knows it."""

    name: str
    backend: str
    began: float
    ended: float
    outcome: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def overlaps(self, since: float, until: float) -> bool:
        return self.began <= until and self.ended >= since


class Steady:
    """Threads that ask until stopped; ``asked`` is what they have asked so far."""

    def __init__(self, lab: Lab, host: str, to: str, paths: dict[str, str]) -> None:
        self.asked: list[Asked] = []
        self._lab, self._host, self._to = lab, host, to
        self._numbers = itertools.count()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._ask, args=item, daemon=True) for item in paths.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join(timeout=TIMEOUT + 5)
            assert not thread.is_alive(), "a request does not end"

    def _ask(self, backend: str, path: str) -> None:
        body = (LAB / "www" / path.rpartition("/")[2]).read_bytes()
        while not self._stopping:
            name = f"{self._host}-{id(self):x}-{next(self._numbers)}"
            began = time.monotonic()
            outcome = self._outcome(web.request(path, f"User-Agent: {name}", close=True), body)
            self.asked.append(Asked(name, backend, began, time.monotonic(), outcome))

    def _outcome(self, request: bytes, body: bytes) -> str:
        with self._lab.socket(self._host) as tcp:
            tcp.settimeout(TIMEOUT)
            try:
                tcp.connect((self._to, 80))
                tcp.sendall(request)
                answer = web.rest(tcp)
            except ConnectionRefusedError:
                return REFUSED
            except (ConnectionResetError, BrokenPipeError):
                return RESET
            except TimeoutError:
                return HUNG
            content = answer.partition(b"\r\n\r\n")[2]
            assert body.startswith(content), "bytes that are not the file's"
            return GOOD if content == body else CUT


@contextmanager
def asking(
    lab: Lab, paths: dict[str, str], host: str = "client", to: str = VIP
) -> Iterator[Steady]:
    """Ask for a path by way of each backend, all at the same time."""
    steady = Steady(lab, host, to, paths)
    try:
        yield steady
    finally:
        steady.stop()


def outcomes(asked: list[Asked]) -> str:
    """For a table: how many requests had which outcome."""
    found = [one.outcome for one in asked]
    return ", ".join(f"{found.count(text)} {text}" for text in dict.fromkeys(found)) or "none"
