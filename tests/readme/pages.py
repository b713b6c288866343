"""The README and the pages in docs: their commands and examples, as their readers find them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
# What tells a command from other words in a sentence, `balancer check` from `balancer`.
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/|provisioning/[\w/]+\.sh |make |balancer |packetbridge "
    r"|vagrant |sysctl |systemctl |journalctl |systemd-analyze |pip |kill |ip |tcpdump |curl "
    r"|nsenter |apt-get )"
)


@dataclass(frozen=True)
class Block:
    """What stands between two fences; ``kind`` is what the first one says it is."""

    page: Path
    kind: str
    text: str


def blocks(kind: str) -> Iterator[Block]:
    for page in PAGES:
        for found, text in FENCED.findall(page.read_text(encoding="utf-8")):
            if found == kind:
                yield Block(page, found, text)


def commands() -> set[str]:
    """All of them: each line of a block, in parts where it says ``&&``, and those in sentences."""
    found = set()
    for block in blocks("sh"):
        for line in block.text.splitlines():
            command = re.sub(r"(^|\s)#.*", "", line).strip()
            found |= {part.strip() for part in command.split("&&") if part.strip()}
    for page in PAGES:
        prose = FENCED.sub("", page.read_text(encoding="utf-8"))
        for span in SPAN.findall(prose):
            if COMMAND.match(span):
                found.add(" ".join(span.split()))
    return found
