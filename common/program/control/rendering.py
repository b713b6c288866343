"""Tables for a terminal, made of what the programs answer; nothing here asks them anything."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDE = 240  # columns where there is no terminal: a pipe's lines are not cut
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def show(*what: RenderableType) -> None:
    """Print to the terminal, or plainly to a pipe."""
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for each in what:
        console.print(each)


def plain(*what: RenderableType, width: int = WIDE) -> str:
    """The same as text without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    for each in what:
        console.print(each)
    return out.getvalue()


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
) -> Table:
    """Rows under names; numbers to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    cells = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[index]) for row in cells)
        made.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        made.add_row(*(cell(value) for value in row))
    return made


def pairs(values: Mapping[str, object], title: str | None = None) -> Table:
    """Names and values, a line each."""
    made = Table(box=None, show_header=False, title=title, title_justify="left", pad_edge=False)
    made.add_column(no_wrap=True, style="bold")
    made.add_column(no_wrap=True)
    for name, value in values.items():
        made.add_row(name, cell(value))
    return made


def columns(values: Mapping[str, int], count: int = 3) -> Table:
    """Many names and numbers, several in a row."""
    made = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(count):
        made.add_column(no_wrap=True)
        made.add_column(justify="right", no_wrap=True)
    items = list(values.items())
    for at in range(0, len(items), count):
        cells: list[Text] = []
        for name, value in items[at : at + count]:
            cells += [Text(name), Text(f"{value:,}")]
        made.add_row(*cells)
    return made


def cell(value: object) -> Text:
    """As it is shown; what the network said is never taken for markup."""
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")
    return Text(str(value), style=_STYLES.get(str(value), ""))


_STYLES = {
    "up": "green",
    "down": "red",
    "draining": "yellow",
    "handed": "green",
    "spliced": "green",
}


def duration(seconds: float) -> str:
    """`3.2 s`, `14 min`, `2.5 h`."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
