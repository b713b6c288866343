"""The server's side, in the packet loop: it never waits, and does one part of the work at a time.

Commands are called between packets. A short one gives its result; a long one is a generator: each
page that it yields is a list of items, and what it returns is the result. For a page without items
nothing is sent, and ``Later`` lets some time pass. A generator whose client goes away is closed.
"""

from __future__ import annotations

import socket
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT
from typing import Any

from common.adapters.control.messages import (
    ANSWER_BYTES,
    REQUEST_BYTES,
    MessageError,
    decode_request,
    encode,
)
from common.adapters.watch import Watch
from common.core.ledger import Occurrence, Outcome

CLIENTS = 16  # at once, whoever was adopted not counted
ENOUGH = 65536  # bytes not taken yet, from which on a client gets no further page
PATIENCE = 10.0  # seconds that a client may take none of the bytes that are for it
BREATH = 1.0  # seconds without accepting, where this host has no descriptor left


class Control(Occurrence):
    """Of commands to the running program."""

    REQUESTS = "control_requests"
    MALFORMED = "control_malformed"  # requests that are none
    REFUSED = "control_refused"  # clients, as there were enough
    SLOW = "control_slow_clients"  # dropped, as they did not read
    ERRORS = "control_errors"  # errors of ours


class CommandError(Exception):
    """A command that cannot be done; the text, one line, is for whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Later:
    """What a generator yields that wants to be asked again in so many seconds."""

    seconds: float


Pages = Generator[list[Any] | Later, None, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """``run`` gets the request's arguments, and gives a result or Pages; raises CommandError.
    ``agent_only``: not for clients that came by the socket in the file system."""

    run: Callable[[Mapping[str, Any]], Any]
    agent_only: bool = False


class ControlServer:
    """Serves clients by ``commands``, which may grow. ``failed`` is given the traceback of an error
    of ours."""

    def __init__(
        self,
        watch: Watch,
        commands: Mapping[str, Command],
        counts: Counter[Outcome | Occurrence],
        failed: Callable[[str], None],
    ) -> None:
        self.commands = commands
        self.watch = watch
        self.counts = counts
        self.failed = failed
        self._sessions: set[Session] = set()
        self._listener: socket.socket | None = None

    def listen(self, listener: socket.socket) -> None:
        """Accept clients from a listening, non-blocking socket, which stays its owner's."""
        self._listener = listener
        self.watch.add(listener.fileno(), POLLIN, self._accept)

    def adopt(self, connected: socket.socket, agent: bool = True) -> None:
        """Serve a client that is connected already; the socket is the server's from now on."""
        connected.setblocking(False)
        self._sessions.add(Session(self, connected, agent))

    def close(self) -> None:
        """Leave all clients and the listener."""
        for session in list(self._sessions):
            session.close()
        if self._listener is not None:
            self.watch.remove(self._listener.fileno())
            self._listener = None

    def left(self, session: Session) -> None:
        """A session has ended."""
        self._sessions.discard(session)

    def _accept(self, _events: int) -> None:
        listener = self._listener
        assert listener is not None, "only a listener is heeded"
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptors, or no memory: it would be ready all the time
            self.watch.change(listener.fileno(), 0)
            return self._again_in(BREATH)
        if sum(not session.agent for session in self._sessions) >= CLIENTS:
            self.counts[Control.REFUSED] += 1
            with client:
                client.setblocking(False)
                client.send(encode({"error": f"there are {CLIENTS} clients already"}))
        else:
            self.adopt(client, agent=False)

    def _again_in(self, seconds: float) -> None:
        def again(_now: float) -> None:
            if self._listener is not None:
                self.watch.change(self._listener.fileno(), POLLIN)

        self.watch.at(self.watch.clock() + seconds, again)


class Session:
    """One client. Its requests are done one after the other, each in a step of its own, and its
    pages likewise."""

    def __init__(self, server: ControlServer, connected: socket.socket, agent: bool) -> None:
        self.agent = agent
        self._server = server
        self._socket = connected
        self._in = bytearray()
        self._out = bytearray()
        self._pages: Pages | None = None
        self._planned = False  # a step is
        self._heard_all = False  # the client says no more
        self._skipping = False  # the rest of a request that is too long
        self._closed = False
        self._since: float | None = None  # when the client last took something of what waits
        self._watched = False  # whether it reads, there will be a look
        self._events = POLLIN
        server.watch.add(connected.fileno(), POLLIN, self._heed)

    def close(self) -> None:
        """Leave the client, whatever it still waits for."""
        if self._closed:
            return
        self._closed = True
        self._server.watch.remove(self._socket.fileno())
        self._socket.close()
        self._server.left(self)
        pages, self._pages = self._pages, None
        if pages is not None:
            try:
                pages.close()
            except Exception:
                self._fail()

    def _heed(self, events: int) -> None:
        try:
            if events & (POLLHUP | POLLERR | POLLNVAL):
                self.close()  # there is nobody to read an answer
            if events & POLLIN and not self._closed:
                self._read()
            if events & POLLOUT:
                self._write()
            self._go_on()
        except Exception:  # of ours: it ends this client, and not the program
            self._fail()
            self.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard_all = self._heard_all or not data
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        self._in += data

    def _write(self) -> None:
        if self._closed or not self._out:
            return
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if not self._out:
            self._since = None
        elif sent or self._since is None:
            self._since = self._server.watch.clock()
            if not self._watched:
                self._watched = True
                self._server.watch.at(self._since + PATIENCE, self._look_whether_it_reads)

    def _go_on(self) -> None:
        """Plan a step where there is something to do, and say what to wait for."""
        if self._closed:
            return
        asked = b"\n" in self._in or len(self._in) >= REQUEST_BYTES
        if not self._planned and len(self._out) < ENOUGH and (self._pages is not None or asked):
            self._plan(0.0)
        if self._heard_all and not asked and self._pages is None and not self._out:
            self.close()
            return
        wants = not self._heard_all and len(self._in) < REQUEST_BYTES
        events = (POLLIN if wants else 0) | (POLLOUT if self._out else 0)
        if events != self._events:
            self._events = events
            self._server.watch.change(self._socket.fileno(), events)

    def _plan(self, seconds: float) -> None:
        self._planned = True
        self._server.watch.at(self._server.watch.clock() + seconds, self._step)

    def _step(self, _now: float) -> None:
        self._planned = False
        if self._closed:
            return
        later = 0.0
        try:
            later = self._turn_page() if self._pages is not None else self._take_request()
        except CommandError as error:
            self._pages = None
            self._answer({"error": " ".join(str(error).split())})
        except Exception:
            self._pages = None
            self._fail()
            self._answer({"error": "an error of the program's own: its log has it"})
        self._write()
        if later and not self._closed:
            self._plan(later)
        self._go_on()

    def _take_request(self) -> float:
        line, newline, rest = self._in.partition(b"\n")
        counts = self._server.counts
        self._in = rest
        if len(line) >= REQUEST_BYTES:
            counts[Control.MALFORMED] += 1
            self._skipping = not newline
            raise CommandError(f"a request has less than {REQUEST_BYTES} bytes")
        try:
            name, arguments = decode_request(bytes(line))
        except MessageError as error:
            counts[Control.MALFORMED] += 1
            raise CommandError(str(error)) from None
        counts[Control.REQUESTS] += 1
        command = self._server.commands.get(name)
        if command is None:
            raise CommandError(f"there is no command {name!r}")
        if command.agent_only and not self.agent:
            raise CommandError(f"{name} is for the program's own agent")
        result = command.run(arguments)
        if isinstance(result, Generator):
            self._pages = result
            return self._turn_page()
        self._answer({"result": result})
        return 0.0

    def _turn_page(self) -> float:
        """Send the next page; gives the seconds after which there may be another."""
        assert self._pages is not None, "there are pages to turn"
        try:
            page = next(self._pages)
        except StopIteration as done:
            self._pages = None
            self._answer({"result": done.value})
            return 0.0
        if isinstance(page, Later):
            return page.seconds
        if page:
            self._answer({"part": page})
        return 0.0

    def _answer(self, message: Mapping[str, object]) -> None:
        line = encode(message)
        if len(line) > ANSWER_BYTES:
            raise CommandError(f"the answer has more than {ANSWER_BYTES} bytes")
        self._out += line

    def _look_whether_it_reads(self, now: float) -> None:
        if self._closed or self._since is None:
            self._watched = False
        elif now < self._since + PATIENCE:
            self._server.watch.at(self._since + PATIENCE, self._look_whether_it_reads)
        else:
            self._server.counts[Control.SLOW] += 1
            self.close()

    def _fail(self) -> None:
        self._server.counts[Control.ERRORS] += 1
        self._server.failed(traceback.format_exc())
