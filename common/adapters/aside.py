"""Work done in a child process, so that what it loads does not stay in memory.

Facts about the host are asked for once, through a library that occupies as much as thirty thousand
connections; the program that then runs for months keeps only the answers.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def aside(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``work`` returns, or raises, when called in a child; both must be picklable.

    For the time before the program has threads or open queues: the child is a fork.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        report(writing, work, *args, **kwargs)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise ChildProcessError(f"{work.__name__}: child ended with status {status}, no answer")
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    returned: R = result
    return returned


def report(writing: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> NoReturn:
    """Run ``work``, write (result, exception) and end the child without the parent's clean-up."""
    try:
        try:
            answer = pickle.dumps((work(*args, **kwargs), None))
        except Exception as error:
            answer = pickle.dumps((None, error))
        with os.fdopen(writing, "wb") as answers:
            answers.write(answer)
    finally:
        os._exit(0)
