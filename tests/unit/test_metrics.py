"""The names of metrics, and what refers to them: the dashboard, the alerts, the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import balancer.program.metrics
import packetbridge.program.metrics
from common.core.histogram import Histogram
from common.core.ledger import Outcome
from common.core.metrics import Family, decode
from common.program.agent.numbers import Families
from tests.unit.accounting import names

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "balancer": balancer.program.metrics,
    "packetbridge": packetbridge.program.metrics,
}
FAMILIES = {
    program: (*metrics.FAMILIES, *Families(program).all()) for program, metrics in PROGRAMS.items()
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_name_is_its_own_and_the_programs(program: str) -> None:
    found = [family.name for family in FAMILIES[program]]
    found = [name.removesuffix("_total") for name in found]  # as OpenMetrics names families
    assert len(set(found)) == len(found)
    for name in found:
        assert name.startswith((f"l3dsr_{program}_", "process_")), name


@pytest.mark.parametrize("program", PROGRAMS)
def test_names_and_units_are_as_prometheus_asks(program: str) -> None:
    """https://prometheus.io/docs/practices/naming"""
    for family in FAMILIES[program]:
        assert not re.search("milli|micro|kilo|_ms|_kb|_count$|_sum$|_bucket$", family.name)
        assert not family.name.removesuffix("_total").endswith("_total")
        assert family.help[0].isupper() or family.help[0].isdigit()
        assert family.help.endswith(".")
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
            assert len(Histogram(family.bounds).counts) == len(family.bounds) + 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_they_are_the_same_after_their_way_to_the_agent(program: str) -> None:
    families = PROGRAMS[program].FAMILIES
    sent = json.loads(json.dumps([family.encode() for family in families]))
    assert decode(sent) == families


@pytest.mark.parametrize(
    "wrong",
    [
        ("l3dsr_x", "counter"),
        ("l3dsr_x_total", "gauge"),
        ("l3dsr-x", "gauge"),
        ("l3dsr_x", "gauge", ("a label",)),
        ("l3dsr_x_seconds", "histogram"),
    ],
)
def test_a_family_that_prometheus_would_not_have_is_refused(wrong: tuple[str, str]) -> None:
    name, kind, *labels = wrong
    with pytest.raises(ValueError, match=re.escape(name)):
        Family(name, kind, "Help.", *labels)  # type: ignore[arg-type]


def documented(program: str) -> dict[str, str]:
    """What docs/counters.md says of each outcome."""
    page = (ROOT / "docs" / "counters.md").read_text(encoding="utf-8")
    table = page.partition("| outcome of a packet | in |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*`) \| ([bp ]+) \| (.*) \|$", table, re.MULTILINE)
    return {
        name: meaning
        for cell, programs, meaning in rows
        if program[0] in programs
        for name in re.findall(r"`(\w+)`", cell)
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_outcome_is_a_drop_or_not_as_the_page_of_counters_has_it(program: str) -> None:
    served = PROGRAMS[program].SERVED
    assert served <= names(Outcome, program)
    for name, meaning in documented(program).items():
        if name in served:
            assert not meaning.startswith(("dropped", "refused", "reset:")), name
        else:
            assert re.search("dropped|refused|reset|answered", meaning), name


# --- what refers to them ---

SUFFIXES = ("_bucket", "_count", "_sum", "")


def exposed() -> set[str]:
    """All names of samples."""
    found = set()
    for families in FAMILIES.values():
        for family in families:
            suffixes = SUFFIXES[:3] if family.kind == "histogram" else SUFFIXES[3:]
            found |= {family.name + suffix for suffix in suffixes}
    cpu = "agent_process_cpu_seconds_total"  # of those that the library has
    return found | {f"l3dsr_{program}_{cpu}" for program in PROGRAMS}


def labels() -> set[str]:
    return {
        label for families in FAMILIES.values() for family in families for label in family.labels
    }


def named(text: str) -> set[str]:
    """Names of ours, and of the processes', in an expression."""
    return set(re.findall(r"\b(?:l3dsr|process)_\w+", text))


def dashboard() -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (ROOT / "provisioning" / "grafana" / "l3dsr.json").read_text(encoding="utf-8")
    )
    return found


def expressions(node: object) -> list[str]:
    """Every query in a dashboard."""
    if isinstance(node, dict):
        own = [node[key] for key in ("expr", "query") if isinstance(node.get(key), str)]
        return own + [found for value in node.values() for found in expressions(value)]
    if isinstance(node, list):
        return [found for value in node for found in expressions(value)]
    return []


def test_the_dashboard_shows_what_there_is() -> None:
    queries = expressions(dashboard())
    assert len(queries) > 10
    assert named("\n".join(queries)) <= exposed()
    for query in queries:
        for grouping in re.findall(r"\bby \(([^)]*)\)", query):
            known = labels() | {"le", "instance", "job"}
            assert {label.strip() for label in grouping.split(",")} <= known, query


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken = set()
    for panel in dashboard()["panels"]:  # type: ignore[attr-defined]
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken and x < 24, panel["title"]
                taken.add((x, y))


RULES = ROOT / "provisioning" / "prometheus" / "l3dsr.rules.yml"


def test_the_alerts_are_about_what_there_is() -> None:
    text = RULES.read_text(encoding="utf-8")
    found = named("\n".join(re.findall(r"expr:(.*(?:\n {10,}.*)*)", text)))
    assert len(found) > 5
    assert found <= exposed()


def test_prometheus_takes_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: prometheus)")
    for command in (["check", "rules", RULES.name], ["test", "rules", "l3dsr.tests.yml"]):
        done = subprocess.run(
            [promtool, *command], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_lists_every_family_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)(\{[\w, ]*\})?` \| ([bp ]+) \|", page, re.MULTILINE)
    listed = {
        (name.replace("PROGRAM", program), cell.strip("{}"))
        for name, cell, programs in rows
        for program in PROGRAMS
        if program[0] in programs
    }
    assert listed == {
        (family.name, ", ".join(family.labels))
        for families in FAMILIES.values()
        for family in families
    }
