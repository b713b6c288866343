"""The labs that are measured in: the tests' own, with files to fetch and servers that count."""

from __future__ import annotations

import os
import re
from types import TracebackType

from tests.e2e.lab import LAB, NAME, Lab

# Our programs on either data path, and a lab without them for all others.
LABS = {"peers": "ebpf", "ebpf": "ebpf", "nfqueue": "nfqueue"}
SERVERS = ("backend1", "backend2")
LARGE, PARALLEL = "bench/large", 16  # bench/1 to bench/16 are one file under as many names


class Hosts(Lab):
    """A context: up when entered, down when left."""

    def __init__(self, name: str, datapath: str) -> None:
        super().__init__(datapath, f"{NAME}-bench-{name}", LAB / "bench" / name)
        self._ours = name != "peers"

    def __enter__(self) -> Hosts:
        try:
            self.up()
            for server in SERVERS:
                self._count_requests(server)
            if not self._ours:
                for program in ("balancer", *SERVERS):
                    self.script("stop", program)
            return self
        except BaseException:
            self.down()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def put_files(self, large: int, parallel: int) -> None:
        """Files of so many bytes. They have no blocks on the disk; the servers read zeros."""
        directory = self.directory / "www" / "bench"
        directory.mkdir(exist_ok=True)
        for name, size in (("large", large), ("1", parallel)):
            with (directory / name).open("wb") as file:
                file.truncate(size)
            self.run("client2", "cat", str(directory / name))  # into the kernel's page cache
        for number in range(2, PARALLEL + 1):
            link = directory / f"{number}"
            link.unlink(missing_ok=True)
            os.link(directory / "1", link)

    def requests(self) -> list[int]:
        """Requests that each server has answered so far, with this question itself."""
        return [
            int(re.findall(r"\d+", self.run(server, "curl", "-s", "http://127.0.0.1:81/"))[3])
            for server in SERVERS
        ]

    def _count_requests(self, server: str) -> None:
        """The server counts instead of writing a line for each request."""
        file = self.directory / "etc" / f"nginx-{server}.conf"
        text = re.sub(r"access_log .*;", "access_log off;", file.read_text())
        status = "server { listen 127.0.0.1:81; location / { stub_status; } }"
        head, brace, _ = text.rpartition("}")
        file.write_text(f"{head}    {status}\n{brace}\n")
        self.script("restart", f"nginx-{server}")
