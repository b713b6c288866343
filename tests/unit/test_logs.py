"""One line a record, and no flood of them."""

import io
import logging

import pytest

from common.program import logs


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_record_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.OneLine())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it\nfailed")
    assert stream.getvalue().count("\n") == 1
    assert " ERROR it\\nfailed" in stream.getvalue()


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def logger(messages: list[str]) -> logging.Logger:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(Keep())
    return logger


def test_more_of_a_kind_are_counted(logger: logging.Logger, messages: list[str]) -> None:
    clock = Clock()
    bounded = logs.BoundedLog(logger, lines=2, period=10.0, clock=clock)
    for number in range(5):
        bounded.log(logging.WARNING, "bad-mac", "from %d", number)
    bounded.log(logging.WARNING, "unknown-flow", "another kind")
    assert messages == ["bad-mac: from 0", "bad-mac: from 1", "unknown-flow: another kind"]
    clock.now = 10.0
    bounded.log(logging.WARNING, "bad-mac", "again")
    assert messages[3:] == ["bad-mac: … and 3 more like it", "bad-mac: again"]


def test_a_count_is_written_without_another_record(
    logger: logging.Logger, messages: list[str]
) -> None:
    clock = Clock()
    bounded = logs.BoundedLog(logger, lines=1, period=10.0, clock=clock)
    bounded.log(logging.WARNING, "bad-mac", "one")
    bounded.log(logging.WARNING, "bad-mac", "two")
    bounded.flush()
    assert messages == ["bad-mac: one"]
    clock.now = 10.0
    bounded.flush()
    bounded.flush()
    assert messages == ["bad-mac: one", "bad-mac: … and 1 more like it"]


def test_a_level_that_is_off_costs_and_counts_nothing(
    logger: logging.Logger, messages: list[str]
) -> None:
    bounded = logs.BoundedLog(logger, lines=1, clock=Clock())
    bounded.log(logging.DEBUG, "bad-mac", "one")
    bounded.log(logging.INFO, "bad-mac", "two")
    assert messages == ["bad-mac: two"]
