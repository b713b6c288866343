"""Work in a child process while the loop goes on."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest

from common.adapters.meanwhile import MOST, BusyError, Meanwhile
from common.adapters.watch import Watch


class Told:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.done: list[Any] = []
        self.failed: list[Exception] = []

    def wait(self, count: int = 1) -> None:
        until = time.monotonic() + 10
        while len(self.done) + len(self.failed) < count:
            assert time.monotonic() < until, "the child says nothing"
            self._watch.heed(self._watch.ready(0.02))
            self._watch.step(time.monotonic())


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def told(watch: Watch) -> Told:
    return Told(watch)


def test_a_result_and_an_error_come_back(watch: Watch, told: Told) -> None:
    def fail() -> None:
        raise ValueError("no")

    meanwhile = Meanwhile(watch)
    meanwhile.run(lambda: list(range(300_000)), told.done.append, told.failed.append)
    meanwhile.run(fail, told.done.append, told.failed.append)
    told.wait(2)
    assert told.done == [list(range(300_000))]
    assert repr(told.failed) == repr([ValueError("no")])


def test_who_says_nothing_and_who_takes_too_long(watch: Watch, told: Told) -> None:
    meanwhile = Meanwhile(watch)
    meanwhile.run(lambda: os._exit(0), told.done.append, told.failed.append)
    told.wait()
    assert isinstance(told.failed[0], ChildProcessError)
    meanwhile.run(lambda: time.sleep(60), told.done.append, told.failed.append, seconds=0.1)
    told.wait(2)
    assert isinstance(told.failed[1], TimeoutError)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # there are none left


def test_the_loop_goes_on_and_there_is_a_bound(watch: Watch, told: Told) -> None:
    meanwhile = Meanwhile(watch)
    began = time.monotonic()
    for _ in range(MOST):
        meanwhile.run(lambda: time.sleep(60), told.done.append, told.failed.append)
    with pytest.raises(BusyError):
        meanwhile.run(lambda: None, told.done.append, told.failed.append)
    assert time.monotonic() - began < 5
    meanwhile.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    meanwhile.run(lambda: 1, told.done.append, told.failed.append)
    told.wait()
    assert (told.done, told.failed) == ([1], [])


def test_the_child_holds_nothing_of_its_parents(watch: Watch, told: Told, tmp_path: Path) -> None:
    """Or a program that ends meanwhile could not start again: its queue and lock were taken."""
    Meanwhile(watch).run(lambda: os.listdir("/proc/self/fd"), told.done.append, told.failed.append)
    told.wait()
    assert len(told.done[0]) <= 5, "its own three, the pipe, and the directory that it reads"
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Meanwhile(watch).run(lambda: 1, told.done.append, told.failed.append)
        told.wait(2)
        with open(tmp_path / "lock", "w") as another, pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
