"""Functions as commands: a request's arguments are checked against the function's own."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

from common.adapters.control.server import Command, CommandError

WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list[str]: "a list of texts",
}


def command(run: Callable[..., Any], agent_only: bool = False) -> Command:
    """A command whose arguments are ``run``'s: of the types in WORDS, or None beside one of them;
    those with a default may be left out. ``run`` may be a generator function, see Pages."""
    hints = get_type_hints(run)
    names = inspect.signature(run).parameters
    wanted = {name: (hints[name], names[name].default is inspect.Parameter.empty) for name in names}
    return Command(partial(_checked, run, wanted), agent_only)


def _checked(
    run: Callable[..., Any], wanted: Mapping[str, tuple[Any, bool]], given: Mapping[str, Any]
) -> Any:
    for name, value in given.items():
        if name not in wanted:
            raise CommandError(f"there is no argument {name!r}")
        kinds = _kinds(wanted[name][0])
        if not any(_is(value, kind) for kind in kinds):
            right = " or ".join(WORDS[kind] for kind in kinds if kind in WORDS)
            raise CommandError(f"{name}: {value!r} is wrong; right would be {right}")
    for name, (_, needed) in wanted.items():
        if needed and name not in given:
            raise CommandError(f"{name} is missing")
    return run(**given)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is types.UnionType else (hint,)


def _is(value: object, kind: Any) -> bool:
    if get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
