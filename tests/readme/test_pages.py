"""What the pages name is there: links, pictures, files; their examples are valid."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from balancer.core import config as balancer_config
from packetbridge.core import config as bridge_config
from tests.readme.pages import FENCED, PAGES, ROOT, blocks
from tests.unit.test_units import EXPOSURE

PROGRAMS = {"balancer": balancer_config, "packetbridge": bridge_config}
SVG = "{http://www.w3.org/2000/svg}"
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    """By the end of their path, as in ``core/splice.py`` or ``test_loss.py``."""
    there = [f"/{file.relative_to(ROOT)}" for top in TOPS for file in (ROOT / top).rglob("*.*")]
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.-])[\w/]+\.(?:bpf\.c|py|h|sh)\b", text))
    for name in named:
        assert any(path.endswith(f"/{name}") for path in there), name
    assert named or page.name not in ("README.md", "promises.md"), "they name many"


TOPS = ("balancer", "packetbridge", "common", "provisioning", "tests")


@pages
def test_every_page_is_linked(page: Path) -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert page == PAGES[0] or f"](docs/{page.name}" in readme


def test_examples_of_configuration_are_valid() -> None:
    """The first line says whose each is."""
    examples = [block.text for block in blocks("toml")]
    assert len(examples) >= 3
    for text in examples:
        program = text.partition("\n")[0].removeprefix("# ")
        assert PROGRAMS[program].parse(text, "README.md")


def test_the_units_exposure_is_what_their_test_allows() -> None:
    readme = " ".join(PAGES[0].read_text(encoding="utf-8").split())
    assert f"rates what they leave open {int(EXPOSURE) / 10} of 10" in readme


def test_the_picture_is_text_and_stands_on_its_own_ground() -> None:
    picture = ET.parse(ROOT / "docs" / "way.svg").getroot()
    words = " ".join("".join(text.itertext()) for text in picture.iter(f"{SVG}text"))
    for word in ("client", "balancer", "VIP", "packetbridge", "nginx", "DSCP", "ACKs", "response"):
        assert word in words
    assert picture.find(f"{SVG}title") is not None
    first = next(picture.iter(f"{SVG}rect"))
    width, height = picture.attrib["viewBox"].split()[2:]
    assert float(first.attrib["width"]) >= float(width) - 2
    assert float(first.attrib["height"]) >= float(height) - 2
