"""manpages.py DIRECTORY: writes a man page for each command of both programs.

What a page says comes from click; click-man makes it. It knows neither click's epilogs nor the
paragraphs that are to be left as they are, and only section 1 of the manual.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click_man.core import generate_man_page

from balancer.program import cli as balancer
from common import __version__
from packetbridge.program import cli as packetbridge

SECTION = 8  # of the manual: commands for administrators
AS_IS = "\b"  # click's sign at the beginning of a paragraph


def pages(
    name: str, command: click.Command, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The names and texts of a command's page, and of its subcommands'."""
    subcommands = command.commands if isinstance(command, click.Group) else {}
    for each in (command, *subcommands.values()):
        each.short_help = _first_sentence(each.help or "")
    context = click.Context(command, info_name=name, parent=parent)
    words = context.command_path
    title = words.replace(" ", "-")
    text = generate_man_page(context, version=__version__).replace("(1)", f"({SECTION})")
    head, _, body = text.partition("\n")
    head = head.replace(f'"{words.upper()}" "1"', f'"{title.upper()}" "{SECTION}"')
    body = body.replace(".SH COMMANDS\n.PP\n", ".SH COMMANDS\n")
    yield title, "\n".join([head, *_laid_out(body + _epilog(command.epilog or ""))]) + "\n"
    for each, subcommand in subcommands.items():
        yield from pages(each, subcommand, context)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].rstrip(".")


def _epilog(text: str) -> str:
    """Its paragraphs, each with a title, as sections."""
    sections = []
    for paragraph in text.replace(AS_IS, "").strip().split("\n\n"):
        title, _, rest = paragraph.strip().partition(":\n")
        if rest:
            sections.append(f".SH {title.upper()}\n{AS_IS}\n{rest}\n")
    return "".join(sections)


def _laid_out(text: str) -> Iterator[str]:
    """The lines of a page, with paragraphs that are to be left as they are marked as such, and
    with the signs of options as they are typed."""
    filled = True
    for line in text.splitlines():
        if not filled and re.match(r"\.(PP|SH)", line):
            filled = True
            yield ".fi"
        if line == AS_IS:
            filled = False
            yield ".nf"
        elif line:
            yield re.sub(r"(?<!\\)--", r"\\-\\-", line)
    if not filled:
        yield ".fi"


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for program in (balancer, packetbridge):
        for title, page in pages(program.PROGRAM.name, program.main):
            Path(directory, f"{title}.{SECTION}").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
