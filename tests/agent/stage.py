"""A stage for the agent: a packet process that is played, and servers that answer as they are told.

The agent is the real one, a process of its own.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from common.adapters.agent.child import Child
from common.core.agent_settings import AgentSettings, encode

WAIT = 10.0  # seconds, at most, for what has to happen


def until(condition: Callable[[], Any], wait: float = WAIT) -> Any:
    """What ``condition`` gives, once it is true."""
    end = time.monotonic() + wait
    while not (found := condition()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)
    return found


class PacketProcess:
    """Answers the agent's commands. ``results`` are those of checks, in their order."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.results: list[tuple[Any, bool, str]] = []
        self.health: dict[str, Any] = {"status": "ok", "pools": []}
        self.flow: dict[str, Any] = {"flow": None, "counters": {}}
        self.rows: list[Any] = []
        self.records: list[dict[str, Any]] = []
        self.reopen = 0
        self.asked: list[str] = []
        self.stalled = threading.Event()
        self.stalled.set()  # cleared: it answers nothing
        self.child = Child()
        self.connected: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def start(self, now: float = 0.0) -> None:
        """Have an agent, if it is time for one."""
        connected = self.child.look(now)
        if connected is not None:
            connected.setblocking(True)
            self.connected = connected
            thread = threading.Thread(target=self._serve, args=(connected,))
            thread.start()
            self._threads.append(thread)

    def change(self, **settings: Any) -> None:
        """New settings."""
        generation = self.settings.generation + 1
        self.settings = replace(self.settings, generation=generation, **settings)

    def hang_up(self) -> None:
        if self.connected is not None:
            with suppress(OSError):  # the agent has hung up
                self.connected.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self.child.close()
        self.stalled.set()
        for thread in self._threads:
            thread.join(WAIT)

    def _serve(self, connected: socket.socket) -> None:
        with connected, connected.makefile("rwb") as lines:
            try:
                for line in lines:
                    request = json.loads(line)
                    self.asked.append(request["command"])
                    self.stalled.wait()
                    for answer in self._answers(request["command"], **request["arguments"]):
                        lines.write(json.dumps(answer).encode() + b"\n")
                    lines.flush()
            except OSError:
                pass  # the agent is gone

    def _answers(self, command: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        if command == "agent-settings":
            for item in encode(self.settings):
                yield {"part": [item]}
            yield {"result": None}
        elif command == "health":
            for target, well, reason in arguments["results"]:
                self.results.append((target, well, reason))
            yield {"result": {"generation": self.settings.generation, "log_level": "info"}}
        elif command == "agent-health":
            lists = {name: value for name, value in self.health.items() if name == "pools"}
            for name, items in lists.items():
                yield {"part": [[name, item] for item in items]}
            yield {"result": {k: v for k, v in self.health.items() if k not in lists}}
        elif command == "metrics":
            yield {"part": self.rows[:1]}
            yield {"part": self.rows[1:]}
            yield {"result": None}
        elif command == "agent-flow":
            yield {"result": {"asked": arguments, **self.flow}}
        elif command == "access-log":
            most = arguments["most"]
            some, self.records = self.records[:most], self.records[most:]
            yield {"result": {"records": some, "reopen": self.reopen}}
        else:
            yield {"error": f"there is no command {command!r}"}


@contextmanager
def packet_process(**settings: Any) -> Iterator[PacketProcess]:
    """One with an agent of these settings."""
    played = PacketProcess(AgentSettings("balancer", 1, **settings))
    try:
        played.start()
        yield played
    finally:
        played.close()


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server at 127.0.0.1 that does ``answer`` with each connection; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def serve() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=one, args=(connected,), daemon=True)
                thread.start()
                threads.append(thread)

        def one(connected: socket.socket) -> None:
            with connected, suppress(OSError):
                answer(connected)

        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(WAIT)
            for thread in threads:
                thread.join(WAIT)


def saying(*data: bytes) -> Callable[[socket.socket], None]:
    """Reads a request's head and answers that."""

    def answer(connected: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connected.recv(65536)
            if not more:
                return
            head += more
        for part in data:
            connected.sendall(part)

    return answer


def response(body: bytes = b"", status: str = "200 OK", fields: str = "") -> bytes:
    """An HTTP/1.1 response."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
