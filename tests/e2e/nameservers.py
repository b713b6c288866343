"""Knot DNS on both backends' hosts, a real server that knows nothing of a VIP; dig and dnsperf."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.lab import SERVER1, SERVER2, VIP, Lab, until

PORT = 53
SERVERS = {"backend1": SERVER1, "backend2": SERVER2}
HOSTS = 64
LARGE = {"1400": 7, "large": 12}  # by name: texts of 190 bytes; the second is over the links' MTU
TOOLS = ("knotd", "dig", "dnsperf")


def zone(name: str) -> str:
    """What the server of that name knows: itself, hosts, and what makes long answers."""
    lines = ["$ORIGIN example.test.", "$TTL 60", "@ SOA ns admin 1 3600 600 86400 60", "@ NS ns"]
    lines += [f"ns A {VIP}", f'who TXT "{name}"']
    lines += [f"host{number} A 192.0.2.{number}" for number in range(1, HOSTS + 1)]
    for owner, count in LARGE.items():
        lines += [f'{owner} TXT "{number:02}{"x" * 188}"' for number in range(count)]
    return "\n".join(lines) + "\n"


def configuration(directory: Path, address: str) -> str:
    return f"""
server:
    listen: {address}@{PORT}
    rundir: {directory}
    user: root
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    udp-max-payload: 4096
log:
  - target: stderr
    any: info
database:
    storage: {directory}
zone:
  - domain: example.test
    file: {directory}/zone
    journal-content: none
"""


class Nameserver:
    def __init__(self, lab: Lab, host: str) -> None:
        self._lab, self.host, self.address = lab, host, SERVERS[host]
        self._directory = lab.directory / "run" / f"knot-{host}"
        self._directory.mkdir(exist_ok=True)
        (self._directory / "zone").write_text(zone(host))
        (self._directory / "knot.conf").write_text(configuration(self._directory, self.address))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Until it answers on its own host."""
        line = self._lab.command(self.host, "knotd", "-c", str(self._directory / "knot.conf"))
        with (self._lab.directory / "log" / f"knot-{self.host}.log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        until(self._answers, 10, f"the name server of {self.host} answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        """Asked by the second client: the first one's addresses belong to flows through the VIP."""
        return dig(self._lab, "who", "TXT", at=self.address, host="client2").texts == [self.host]


@contextmanager
def nameservers(lab: Lab) -> Iterator[dict[str, Nameserver]]:
    """One on each backend's host, by the host's name."""
    with ExitStack() as stack:
        running = {}
        for host in SERVERS:
            running[host] = Nameserver(lab, host)
            stack.callback(running[host].stop)
        yield running


@dataclass(frozen=True)
class Reply:
    """What dig said: the records of the answer as (type, content), and all of it."""

    records: list[tuple[str, str]]
    said: str

    @property
    def texts(self) -> list[str]:
        return [content.strip('"') for kind, content in self.records if kind == "TXT"]

    @property
    def size(self) -> int:
        """The answer's, in bytes."""
        found = re.search(r"MSG SIZE +rcvd: (\d+)", self.said)
        return int(found[1]) if found else 0

    @property
    def truncated(self) -> bool:
        return re.search(r"flags: [a-z ]*\btc\b", self.said) is not None


def dig(
    lab: Lab, name: str, kind: str = "A", *options: str, at: str = VIP, host: str = "client"
) -> Reply:
    """One question, asked once, and by TCP only where an option says so."""
    line = ["dig", "+tries=1", "+time=2", "+ignore", f"@{at}", *options]
    done = lab.result(host, *line, f"{name}.example.test", kind)
    rows = [line.split(None, 4) for line in done.stdout.splitlines() if line[:1] not in ";"]
    return Reply([(row[3], row[4]) for row in rows if len(row) == 5], done.stdout + done.stderr)


@dataclass(frozen=True)
class Load:
    """What dnsperf counted: queries, those without an answer, answers a second; in seconds."""

    sent: int
    lost: int
    rate: float
    latency: float
    said: str


def dnsperf(
    lab: Lab,
    *options: str,
    at: str = VIP,
    host: str = "client",
    seconds: float = 60,
) -> Load:
    """Questions for addresses of ``host1`` and so on, all of which are to be answered rightly;
    ``options`` are dnsperf's, ``seconds`` its longest time."""
    questions = lab.directory / "run" / "questions"
    lines = [f"host{number}.example.test A\n" for number in range(1, HOSTS + 1)]
    questions.write_text("".join(lines))
    line = ["dnsperf", "-s", at, "-p", f"{PORT}", "-d", str(questions), *options]
    said = lab.run(host, *line, timeout=seconds + 30)
    numbers = {
        name: float(found[1])
        for name in ("Queries sent", "Queries lost", "Queries per second", "Average Latency (s)")
        if (found := re.search(rf"{re.escape(name)}: +([\d.]+)", said))
    }
    codes = re.search(r"Response codes: +(.*)", said)
    assert codes is None or codes[1].startswith("NOERROR"), said
    assert "," not in (codes[1] if codes else ""), said
    return Load(
        int(numbers["Queries sent"]),
        int(numbers["Queries lost"]),
        numbers["Queries per second"],
        numbers.get("Average Latency (s)", 0.0),
        said,
    )
