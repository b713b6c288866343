"""Tests in two sizes: small in every run, large with --soak, and a table of what they measured.

A test that asks for the fixture `amount` has a long form; one marked `soak` has only that. With
--soak these run and no others, with their progress shown.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from tqdm import tqdm

OPTION = "--soak"
REFRESH = 0.5  # seconds between two looks at the clock

T = TypeVar("T")


class Figures:
    """What tests report: (test, seconds it took, what it says), in the order in which they ran."""

    def __init__(self, soaking: bool) -> None:
        self.soaking = soaking
        self._said: dict[str, list[str]] = {}
        self._seconds: dict[str, float] = {}
        self._outcome: dict[str, str] = {}

    def say(self, test: str, text: str) -> None:
        self._said.setdefault(test, []).append(text)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        self._seconds[name] = self._seconds.get(name, 0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            self._outcome[name] = report.outcome

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        shown = self._outcome if self.soaking else self._said
        if not shown:
            return
        terminalreporter.section("figures")
        for name in shown:
            head = f"{self._outcome.get(name, '?'):7} {self._seconds.get(name, 0):6.1f} s  "
            terminalreporter.write_line(head + name.removeprefix("tests/"))
            for text in self._said.get(name, []):
                terminalreporter.write_line(f"{'':20}{text}")


class Progress:
    """A bar over the tests of a soak, with the present one's name, time and own count."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")
        self._bar: tqdm[object] | None = None
        self._own = ""
        self._name = ""
        self._started = 0.0
        self._over = threading.Event()
        self._terminal = sys.stderr.isatty()

    def shows(self, own: str) -> None:
        """What the running test has done so far."""
        self._own = own

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items and self._terminal:
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} tests, {elapsed}, to go {remaining} {postfix}"
            self._bar = tqdm(total=len(session.items), bar_format=form, file=sys.__stderr__)
            threading.Thread(target=self._refresh, daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._name, self._own, self._started = nodeid.rpartition("::")[2], "", time.monotonic()

    def pytest_runtest_logfinish(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def pytest_sessionfinish(self) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.close()

    def _refresh(self) -> None:
        assert self._bar is not None
        while not self._over.wait(REFRESH):
            running = time.monotonic() - self._started
            self._bar.set_postfix_str(f"{self._name} {running:.0f} s {self._own}")


class Amount:
    """Gives a test's size: the first of two in every run, the second with --soak."""

    def __init__(self, soaking: bool, progress: Callable[[str], None]) -> None:
        self.soaking = soaking
        self._progress = progress

    def __call__(self, fast: T, long: T) -> T:
        return long if self.soaking else fast

    def wait(self, seconds: float) -> None:
        """Where silence is what a test is about: as long as it says, with its progress shown."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.progress(seconds - left, seconds)
            time.sleep(min(left, 1))

    def progress(self, done: float, of: float) -> None:
        """Say how far the test has come."""
        self._progress(f"{done:,.0f}/{of:,.0f}")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="run the long forms, and no other tests")


def configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: has a long form only")
    soaking = bool(config.getoption(OPTION))
    config.pluginmanager.register(Figures(soaking), "figures")
    if soaking:
        config.pluginmanager.register(Progress(config), "soak-progress")


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that are to run: the long forms, or all that have a short one."""
    soaking, chosen, others = bool(config.getoption(OPTION)), [], []
    for item in items:
        only_long = item.get_closest_marker("soak") is not None
        has_long = only_long or "amount" in getattr(item, "fixturenames", ())
        (chosen if (has_long if soaking else not only_long) else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


@pytest.fixture
def amount(request: pytest.FixtureRequest) -> Amount:
    progress = request.config.pluginmanager.getplugin("soak-progress")
    soaking = bool(request.config.getoption(OPTION))
    return Amount(soaking, progress.shows if progress else lambda _: None)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """A function that puts a line under the test's name into the table at the end."""
    figures = request.config.pluginmanager.getplugin("figures")
    yield lambda text: figures.say(request.node.nodeid, text)
