"""A parsed TOML table becomes frozen dataclasses that check themselves.

A settings class is a frozen dataclass over `Settings`; the check of a field stands in its type:

    @dataclass(frozen=True, slots=True)
    class Backend(Settings):
        bridge: Annotated[str, IPV4]
        weight: Annotated[int, whole(1, 1000)] = 1

Nested tables (`limits: Limits`, `check: Check | None`) and arrays of tables
(`backends: tuple[Backend, ...]`) are read by their own class, a `Literal` is its own check. `read`
reports every mistake of a file at once; rules between several values (`conflicts`) are tried where
each of the values can be used.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints


class SettingsError(Exception):
    """Settings that cannot be used; `problems` holds one line for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Check:
    """What a value must be, in words, and the conversion that makes it so.

    `convert` returns the value to keep and raises ValueError or TypeError for an unfit one.
    """

    wanted: str
    convert: Callable[[Any], Any]

    def __call__(self, value: object) -> Any:
        """The value to keep; raises ValueError that says what is wrong and what would be right."""
        try:
            return self.convert(value)
        except (ValueError, TypeError):
            raise ValueError(f"{value!r} is wrong; right would be {self.wanted}") from None


@dataclass(frozen=True)
class Joined:
    """One TOML key that holds the values of several fields, such as `server = "ADDR:PORT"`."""

    names: tuple[str, ...]
    check: Check  # converts to as many values as there are names


def renamed(name: str, check: Check) -> Joined:
    """A TOML key whose field has another name."""
    return Joined((name,), Check(check.wanted, lambda value: (check(value),)))


class Settings:
    """Base of the settings classes: an instance exists only with valid values."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # of the subclass
    joined: ClassVar[Mapping[str, Joined]] = {}

    def __post_init__(self) -> None:
        """Check every field, then the rules between them; raises SettingsError with them all."""
        problems = []
        for name, check in _checks(type(self)).items():
            try:
                object.__setattr__(self, name, check(getattr(self, name)))
            except ValueError as error:
                problems.append(f"{name}: {error}")
        problems = problems or [f"{key}: {text}" for key, text in self.conflicts()]
        if problems:
            raise SettingsError(problems)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Values right alone and wrong together: (key path, what is wrong; what would be right)."""
        return iter(())

    @classmethod
    def implied(cls, table: Mapping[str, object]) -> dict[str, object]:
        """Values of keys that a table leaves out and its other keys imply."""
        return {}


S = TypeVar("S", bound=Settings)


# --- checks ---


def whole(low: int, high: int) -> Check:
    """An integer from `low` to `high`, both included; a boolean is none."""

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return Check(f"a whole number from {low} to {high}", convert)


def seconds(low: float, high: float) -> Check:
    """A duration in seconds from `low` to `high`, kept as a float."""

    return Check(f"a number of seconds from {low:g} to {high:g}", number(low, high).convert)


def number(low: float, high: float) -> Check:
    """A number from `low` to `high`, kept as a float."""

    def convert(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        if not low <= value <= high:  # NaN fails here as well
            raise ValueError
        return float(value)

    return Check(f"a number from {low:g} to {high:g}", convert)


def one_of(*choices: str) -> Check:
    def convert(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return Check(" or ".join(f"'{choice}'" for choice in choices), convert)


def matching(wanted: str, pattern: str) -> Check:
    """Text that matches the whole of the regular expression `pattern`."""

    def convert(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Check(wanted, convert)


def optional(check: Check) -> Check:
    """None, or what `check` accepts."""
    return Check(check.wanted, lambda value: None if value is None else check(value))


def tuple_of(check: Check) -> Check:
    """A list whose elements `check` accepts, kept as a tuple."""

    def convert(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(check(element) for element in value)

    return Check(f"a list, each element {check.wanted}", convert)


def _host_address(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    address = ipaddress.IPv4Address(value)
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        raise ValueError
    return str(address)


def _endpoint(value: object) -> tuple[str, int]:
    if not isinstance(value, str):
        raise TypeError
    address, _, port = value.rpartition(":")
    return _host_address(address), PORT(_decimal(port))


def _port_range(value: object) -> tuple[int, int]:
    if isinstance(value, str):
        first, _, last = value.partition("-")
        value = (_decimal(first), _decimal(last))
    if not isinstance(value, tuple):
        raise TypeError
    low, high = map(PORT, value)
    if low > high:
        raise ValueError
    return low, high


def _decimal(text: str) -> int:
    """An integer of ASCII digits only: int() alone also takes '1_0', ' 1' and other scripts."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError
    return int(text)


def _yes_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


YES_NO = Check("true or false", _yes_no)
PORT = whole(1, 65535)
IPV4 = Check("the IPv4 address of one host, such as '192.168.33.10'", _host_address)
ENDPOINT = Check("ADDRESS:PORT, such as '192.168.33.30:80'", _endpoint)
PORT_RANGE = Check("a range of ports, such as '20000-29999'", _port_range)
INTERFACE = matching("an interface's name, such as 'eth0'", r"(?!\.\.?$)[^\s/:]{1,15}")
NAME = matching("a name of at most 64 printable characters", r"[ -~]{1,64}")
PATH = matching("a path from the root, such as '/etc/l3dsr/key'", r"/[^\0\n]*")


# --- reading ---


def read(cls: type[S], text: str, file: str) -> S:
    """The settings in a TOML text; `file` names it in the errors.

    Raises SettingsError whose problems read `FILE: key.path[0].name: what is wrong; what would
    be right`, every mistake at once; a key that is not known is a mistake.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{file}: not TOML: {error}"]) from None
    problems: list[str] = []
    settings = _read_table(cls, table, "", problems)
    if settings is None or problems:
        raise SettingsError([f"{file}: {problem}" for problem in problems])
    return settings


def _read_table(cls: type[S], table: object, path: str, problems: list[str]) -> S | None:
    """An instance of `cls`, or None; whatever is wrong is appended to `problems`."""
    if not isinstance(table, dict):
        problems.append(f"{path}: {table!r} is wrong; right would be a table of {_known(cls)}")
        return None
    prefix = f"{path}." if path else ""
    problems += [f"{prefix}{key}: {text}" for key, text in _unknown(cls, table)]
    values: dict[str, object] = {}
    whole_tables = True  # else rules between values would find things missing that are there
    for key in _keys(cls):
        if key in table:
            found = _read_key(cls, key, table[key], prefix, problems)
            whole_tables = whole_tables and (bool(found) or key not in _nested(cls))
            values |= found
    values = cls.implied(table) | values
    missing = _required(cls) - values.keys()
    problems += [f"{prefix}{key}: {text}" for key, text in _absent(cls, table, missing)]
    if missing or not whole_tables:
        return None
    try:
        return cls(**values)
    except SettingsError as error:
        told = {problem.partition(": ")[0] for problem in problems}  # by its default that stands in
        every = [prefix + problem for problem in error.problems]
        problems += [problem for problem in every if problem.partition(": ")[0] not in told]
        return None


def _read_key(
    cls: type[Settings], key: str, value: object, prefix: str, problems: list[str]
) -> dict[str, object]:
    """The fields that a key gives. Of an unfit value none: the default, if any, stands in, so that
    the rules between values can still be tried.
    """
    if key in _nested(cls):
        found = _read_nested(cls, key, value, prefix + key, problems)
        return {} if found is None else {key: found}
    try:
        if key in cls.joined:
            return dict(zip(cls.joined[key].names, cls.joined[key].check(value), strict=True))
        return {key: _checks(cls)[key](value)}
    except ValueError as error:
        problems.append(f"{prefix}{key}: {error}")
        return {}


def _read_nested(
    cls: type[Settings], key: str, value: object, path: str, problems: list[str]
) -> object:
    inner, several = _nested(cls)[key]
    if not several:
        return _read_table(inner, value, path, problems)
    if not isinstance(value, list):
        problems.append(f"{path}: {value!r} is wrong; right would be tables, each [[{key}]]")
        return None
    read_all = [_read_table(inner, t, f"{path}[{i}]", problems) for i, t in enumerate(value)]
    return None if None in read_all else tuple(read_all)


def _unknown(cls: type[Settings], table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key in sorted(table.keys() - set(_keys(cls))):
        close = difflib.get_close_matches(key, _keys(cls), 1)
        hint = f"did you mean '{close[0]}'?" if close else f"right would be {_known(cls)}"
        yield key, f"no such key; {hint}"


def _absent(
    cls: type[Settings], table: Mapping[str, object], missing: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Required keys that the table lacks (a key with an unfit value was reported already)."""
    nested, checks = _nested(cls), _checks(cls)
    for key in _keys(cls):
        names = cls.joined[key].names if key in cls.joined else (key,)
        if key in table or not missing.intersection(names):
            continue
        if key in nested:
            wanted = f"at least one [[{key}]] with {_known(nested[key][0])}"
        else:
            wanted = (cls.joined[key].check if key in cls.joined else checks[key]).wanted
        yield key, f"is missing; right would be {wanted}"


def repeated(path: str, items: Sequence[Settings], key: str) -> Iterator[tuple[str, str]]:
    """Problems, as Settings.conflicts has them, with items that share what each has to itself."""
    first: dict[object, int] = {}
    for index, item in enumerate(items):
        value = getattr(item, key)
        if value in first:
            taken = f"'{value}' is taken by {path}[{first[value]}]"
            yield f"{path}[{index}].{key}", f"{taken}; right would be a {key} of its own for each"
        first.setdefault(value, index)


# --- the command line ---


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given: those that are not None."""
    return {name: value for name, value in flags.items() if value is not None}


@contextmanager
def flags() -> Iterator[None]:
    """Problems with values that flags gave name the flag: `--log-level` for `log_level`."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError([_as_flag(problem) for problem in error.problems]) from None


def _as_flag(problem: str) -> str:
    key, separator, text = problem.partition(": ")
    if re.fullmatch("[a-z_]+", key):
        key = "--" + key.replace("_", "-")
    return key + separator + text


# --- what a settings class declares ---


def _known(cls: type[Settings]) -> str:
    return "the keys " + ", ".join(_keys(cls))


def _keys(cls: type[Settings]) -> tuple[str, ...]:
    """The TOML keys of a class: its fields, with the keys of `joined` for theirs."""
    hidden = {name for joined in cls.joined.values() for name in joined.names}
    names = tuple(field.name for field in fields(cls) if field.name not in hidden)
    return names + tuple(cls.joined)


def _required(cls: type[Settings]) -> frozenset[str]:
    return frozenset(
        field.name
        for field in fields(cls)
        if field.default is MISSING and field.default_factory is MISSING
    )


def _checks(cls: type[Settings]) -> Mapping[str, Check]:
    checks = {}
    for name, hint in _hints(cls).items():
        if get_origin(hint) is Literal:
            checks[name] = one_of(*get_args(hint))
        elif get_origin(hint) is Annotated:
            checks[name] = hint.__metadata__[0]
    return checks


def _nested(cls: type[Settings]) -> Mapping[str, tuple[type[Settings], bool]]:
    """Fields that are settings themselves: their class, and whether there are several."""
    nested = {}
    for name, hint in _hints(cls).items():
        several = get_origin(hint) is tuple
        inner = get_args(hint)[0] if several or isinstance(hint, UnionType) else hint
        if isinstance(inner, type) and issubclass(inner, Settings):
            nested[name] = (inner, several)
    return nested


_HINTS: dict[type[Any], Mapping[str, Any]] = {}  # of classes; to find them out takes a while


def _hints(cls: type[Settings]) -> Mapping[str, Any]:
    known = _HINTS.get(cls)
    if known is None:
        hints = get_type_hints(cls, include_extras=True)
        known = _HINTS[cls] = {field.name: hints[field.name] for field in fields(cls)}
    return known
