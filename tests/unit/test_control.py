"""Commands to a running program: lines, bounds, pages, clients that do not read, and the socket's
place in the file system; all with real Unix sockets."""

from __future__ import annotations

import gc
import grp
import os
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.adapters.control import server as serving
from common.adapters.control.client import (
    ControlClient,
    ControlError,
    NotRunningError,
    RefusedError,
    connect,
)
from common.adapters.control.messages import ANSWER_BYTES, REQUEST_BYTES, encode
from common.adapters.control.place import ControlSocketError, listening
from common.adapters.control.server import (
    CLIENTS,
    Command,
    CommandError,
    Control,
    ControlServer,
    Later,
    Pages,
)
from common.adapters.watch import Watch
from common.program.control.pages import ITEMS, paged
from common.program.control.table import command


class Program:
    """A loop without packets, in a thread of its own; ``steps`` counts its turns."""

    def __init__(self, **commands: Command) -> None:
        self.now = 0.0  # what its clock is ahead of the real one
        self.counts: Counter[Any] = Counter()
        self.failures: list[str] = []
        self.watch = Watch(self._clock)
        self.server = ControlServer(self.watch, commands, self.counts, self.failures.append)
        self.steps = 0
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def turn(self, seconds: float = 0.0) -> None:
        """What a packet loop does in a turn, but for packets."""
        wait = min(self.watch.due - self._clock(), seconds)
        self.watch.heed(self.watch.ready(wait))
        now = self._clock()
        if now >= self.watch.due:
            self.steps += 1
            self.watch.step(now)

    def stop(self) -> None:
        self._over = True
        if self._thread.is_alive():
            self._thread.join(5)
        self.server.close()

    def _clock(self) -> float:
        return time.monotonic() + self.now

    def _run(self) -> None:
        while not self._over:
            self.turn(0.02)


@contextmanager
def running(**commands: Callable[..., Any] | Command) -> Iterator[Program]:
    made = {
        name: each if isinstance(each, Command) else command(each)
        for name, each in commands.items()
    }
    program = Program(**made)
    try:
        yield program
    finally:
        program.stop()


def pair(program: Program, agent: bool = False) -> socket.socket:
    """The client's end of a connection that the program serves."""
    ours, its = socket.socketpair()
    program.server.adopt(its, agent)
    ours.settimeout(5)
    return ours


def lines(ours: socket.socket, count: int) -> list[bytes]:
    with ours.makefile("rb") as stream:
        return [stream.readline() for _ in range(count)]


def echo(word: str, times: int = 1) -> str:
    return word * times


def ask(ours: socket.socket, line: bytes, program: Program) -> bytes:
    ours.sendall(line)
    for _ in range(5):
        program.turn()
    return ours.recv(65536)


# --- requests and answers ---


def test_a_command_is_answered_with_its_result() -> None:
    with running(echo=echo) as program:
        program.start()
        client = ControlClient(pair(program), "program")
        assert client.ask("echo", word="ab", times=2) == "abab"
        assert client.ask("echo", word="c") == "c"
        assert program.counts == {Control.REQUESTS: 2}


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"hello\n", "not a line of JSON"),
        (b"\n", "not a line of JSON"),
        (b"[" * 50000 + b"\n", "not a line of JSON"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[1]\n", "a message is a JSON object"),
        (b"{}\n", 'a request names a command: {"command": NAME, "arguments": {}}'),
        (b'{"command": "echo", "arguments": 1}\n', "a request's arguments are an object"),
        (b'{"command": "echo", "more": 1}\n', "a request has no 'more'"),
    ],
)
def test_what_is_no_request_is_counted_and_said_and_the_next_one_done(
    request_line: bytes, error: str
) -> None:
    with running(echo=echo) as program:
        ours = pair(program)
        assert ask(ours, request_line, program) == encode({"error": error})
        good = encode({"command": "echo", "arguments": {"word": "a"}})
        assert ask(ours, good, program) == b'{"result":"a"}\n'
        assert program.counts == {Control.MALFORMED: 1, Control.REQUESTS: 1}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"command": "dance"}, "there is no command 'dance'"),
        ({"command": "echo"}, "word is missing"),
        ({"command": "echo", "arguments": {"word": 1}}, "word: 1 is wrong; right would be text"),
        (
            {"command": "echo", "arguments": {"word": "a", "times": True}},
            "times: True is wrong; right would be a whole number",
        ),
        ({"command": "echo", "arguments": {"w": 1}}, "there is no argument 'w'"),
    ],
)
def test_wrong_commands_and_arguments_are_named(request_: dict[str, Any], error: str) -> None:
    with running(echo=echo) as program:
        assert ask(pair(program), encode(request_), program) == encode({"error": error})


def test_a_request_too_long_is_refused_up_to_its_end() -> None:
    with running(echo=echo) as program:
        ours = pair(program)
        for _ in range(3 * REQUEST_BYTES // 4096):
            ours.send(b"x" * 4096)
            program.turn()
        ours.send(b"x\n" + encode({"command": "echo", "arguments": {"word": "a"}}))
        for _ in range(10):
            program.turn()
        refusal = encode({"error": f"a request has less than {REQUEST_BYTES} bytes"})
        assert ours.recv(4096) == refusal + b'{"result":"a"}\n'
        assert program.counts == {Control.MALFORMED: 1, Control.REQUESTS: 1}


def test_a_request_in_single_bytes_and_several_in_one_piece() -> None:
    with running(echo=echo) as program:
        ours = pair(program)
        line = encode({"command": "echo", "arguments": {"word": "a"}})
        for byte in line:
            ours.send(bytes((byte,)))
            program.turn()
        ours.send(line * 20)
        for _ in range(100):
            program.turn()
        assert ours.recv(65536) == b'{"result":"a"}\n' * 21


def test_what_is_for_the_agent_is_not_for_others() -> None:
    with running(secret=Command(lambda _: 1, agent_only=True)) as program:
        line = encode({"command": "secret"})
        refusal = encode({"error": "secret is for the program's own agent"})
        assert ask(pair(program), line, program) == refusal
        assert ask(pair(program, agent=True), line, program) == b'{"result":1}\n'


def test_an_error_of_ours_is_told_and_counted_and_ends_nothing() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def fail_late() -> Pages:
        yield [1]
        raise ZeroDivisionError

    def unspeakable() -> object:
        return object()

    with running(fail=fail, fail_late=fail_late, unspeakable=unspeakable, echo=echo) as program:
        program.start()
        client = ControlClient(pair(program), "program")
        for name in ("fail", "fail_late", "unspeakable"):
            with pytest.raises(RefusedError, match="its log has it"):
                client.ask(name)
        assert program.counts[Control.ERRORS] == 3
        assert "ZeroDivisionError" in program.failures[0]
        assert client.ask("echo", word="a") == "a"


def test_a_commands_own_words_are_one_line() -> None:
    def refuse() -> None:
        raise CommandError("not\nthis way")

    with running(refuse=refuse) as program:
        assert ask(pair(program), encode({"command": "refuse"}), program) == encode(
            {"error": "not this way"}
        )


# --- pages ---


def test_a_long_answer_comes_in_pages_one_in_a_turn() -> None:
    def count(most: int) -> Pages:
        return paged(range(most), "done")

    with running(count=count) as program:
        ours = pair(program)
        ours.send(encode({"command": "count", "arguments": {"most": 5 * ITEMS}}))
        program.turn()
        for pages in range(1, 4):
            assert program.steps == pages
            program.turn()
        program.start()
        answers = lines(ours, 6)
        assert answers[0] == encode({"part": list(range(ITEMS))})
        assert answers[5] == b'{"result":"done"}\n'


def test_two_clients_take_turns() -> None:
    def count() -> Pages:
        for number in range(1000):
            yield [number]

    with running(count=count) as program:
        both = [pair(program), pair(program)]
        for ours in both:
            ours.send(encode({"command": "count"}))
        for _ in range(41):
            program.turn()
        received = [ours.recv(65536).count(b"\n") for ours in both]
        assert sum(received) >= 39
        assert abs(received[0] - received[1]) <= 1


def test_a_generator_waits_without_turns() -> None:
    def wait() -> Pages:
        yield Later(0.15)
        yield []
        return "waited"

    with running(wait=wait) as program:
        program.start()
        assert ControlClient(pair(program), "program").ask("wait") == "waited"
        assert program.steps <= 4


def test_pages_end_by_time_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(page) for page in paged(range(ITEMS + 5))] == [ITEMS, 5]  # type: ignore[arg-type]
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock) * 0.01)
    sizes = [len(page) for page in paged([None] * 63 + [1] * 65)]  # type: ignore[arg-type]
    assert sizes == [0, 1, 32, 32, 0]


def test_a_slow_reader_gets_no_page_too_many_and_is_left_after_a_time() -> None:
    turned = []

    def endless() -> Pages:
        try:
            while True:
                turned.append(1)
                yield ["x" * 10000]
        finally:
            turned.append(0)

    with running(endless=endless) as program:
        ours = pair(program)
        ours.send(encode({"command": "endless"}))
        for _ in range(500):
            program.turn()
        made = len(turned)
        assert made < 100, "some that the kernel holds, and some here"
        program.now += serving.PATIENCE / 2
        assert ours.recv(150000), "most of it: the kernel asks for more only then"
        for _ in range(50):
            program.turn()
        program.now += serving.PATIENCE * 0.75
        for _ in range(50):
            program.turn()
        assert not program.counts[Control.SLOW], "it has read something meanwhile"
        program.now += serving.PATIENCE
        for _ in range(3):
            program.turn()
        assert program.counts[Control.SLOW] == 1
        assert turned[-1] == 0, "its generator was closed"
        ours.settimeout(1)
        while ours.recv(65536):
            pass


def test_a_generator_is_closed_when_its_client_goes() -> None:
    ended = []

    def watch() -> Pages:
        try:
            while True:
                yield Later(60)
        finally:
            ended.append(1)

    with running(watch=watch) as program:
        ours = pair(program)
        ours.send(encode({"command": "watch"}))
        program.turn()
        program.turn()
        assert not ended
        ours.close()
        program.turn()
        assert ended


def test_a_client_that_says_no_more_still_gets_its_answers() -> None:
    with running(echo=echo) as program:
        ours = pair(program)
        ours.send(encode({"command": "echo", "arguments": {"word": "a"}}) * 2)
        ours.shutdown(socket.SHUT_WR)
        for _ in range(10):
            program.turn()
        assert ours.recv(100) == b'{"result":"a"}\n' * 2
        assert ours.recv(100) == b"", "and is left"


def test_an_answer_too_long_for_a_line_is_an_error() -> None:
    with running(echo=echo) as program:
        program.start()
        client = ControlClient(pair(program), "program")
        with pytest.raises(RefusedError, match=f"more than {ANSWER_BYTES} bytes"):
            client.ask("echo", word="a", times=ANSWER_BYTES)
        assert client.ask("echo", word="a", times=ANSWER_BYTES - 100) == "a" * (ANSWER_BYTES - 100)


# --- clients ---


def test_there_are_only_so_many_clients_and_the_agent(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with listening(path, None) as listener, running(echo=echo) as program:
        program.server.listen(listener)
        program.start()
        pair(program, agent=True)
        clients = [connect(path, "program") for _ in range(CLIENTS)]
        assert all(client.ask("echo", word="a") == "a" for client in clients)
        with pytest.raises(RefusedError, match=f"there are {CLIENTS} clients already"):
            connect(path, "program").ask("echo", word="a")
        assert program.counts[Control.REFUSED] == 1
        clients.pop().close()
        for _ in range(100):
            try:
                assert connect(path, "program").ask("echo", word="a") == "a"
                break
            except ControlError:
                pass
        else:
            pytest.fail("no room for another client")


def test_clients_leave_no_cycles_behind() -> None:
    """The packet loop runs without the collector."""

    def some() -> Pages:
        yield [1]
        raise CommandError("no more")

    with running(echo=echo, some=some) as program:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                ours = pair(program)
                ours.send(encode({"command": "echo"}) + encode({"command": "some"}) + b"x\n")
                for _ in range(10):
                    program.turn()
                ours.close()
                program.turn()
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    missing = f"balancer is not running \\(no answer at {path}\\)"
    with pytest.raises(NotRunningError, match=missing):
        connect(str(path), "balancer")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NotRunningError, match=missing):
        connect(str(path), "balancer")
    with pytest.raises(ControlError, match="without a control socket"):
        connect("", "balancer")


def test_a_program_that_goes_or_stands_still_is_told_of() -> None:
    ours, its = socket.socketpair()
    client = ControlClient(ours, "balancer", timeout=0.05)
    with pytest.raises(ControlError, match=r"balancer has not answered in 0.05 s"):
        client.ask("status")
    its.close()
    with pytest.raises(ControlError, match="balancer is gone"):
        client.ask("status")


# --- the socket's place ---


def test_the_socket_is_for_owner_and_group_and_goes_with_its_program(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    mine = grp.getgrgid(os.getgid()).gr_name
    with listening(str(path), mine):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == os.getgid()
    assert not path.exists()


@pytest.mark.root
def test_another_group_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(str(path), "daemon"):
        assert path.stat().st_gid == grp.getgrnam("daemon").gr_gid


def test_a_socket_that_was_left_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    refused = pytest.raises(ControlSocketError, match="a running program")
    with listening(path, None), refused, listening(path, None):
        pass
    with listening(path, None):
        pass


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(str(path), None):
        path.unlink()
        path.write_text("another")
    assert path.read_text() == "another"


@pytest.mark.parametrize(
    ("name", "group", "words"),
    [
        ("file", None, r"file: there is something else of that name; mend: remove it"),
        ("none/socket", None, r"socket: No such file or directory; mend: mkdir .*/none"),
        ("socket", "nobody-there", r"no group 'nobody-there'; mend: groupadd --system"),
        ("x" * 108, None, r"too long; mend: choose another path: \[control\] socket"),
    ],
)
def test_a_socket_that_cannot_be_had_is_named_with_its_cure(
    tmp_path: Path, name: str, group: str | None, words: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ControlSocketError, match=words), listening(str(tmp_path / name), group):
        pass
