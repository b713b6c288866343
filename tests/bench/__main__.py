"""Measures this balancer beside its peers and beside none, in one run on one machine.

    python -m tests.bench [--quick] [--output DIRECTORY] [--check]

Needs root, and the packages of the `bench` extra. In each case the contestants are measured one
after the other, round by round, so that what disturbs the machine disturbs them alike.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.bench import chart, machine, table
from tests.bench.cases import FULL, QUICK, Case, Sizes, cases, prepare
from tests.bench.contestants import Contestant, configurations, contestants
from tests.bench.meters import costs
from tests.bench.results import Results, Round, missed


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything: under two minutes, and rougher.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".bench"),
    show_default=True,
    help="Where bench.json and bench.svg are written.",
)
@click.option(
    "--check", is_flag=True, help="Exit with 1 where a goal is missed or a request failed."
)
@click.option("--case", "chosen", multiple=True, help="Only this case (repeat for more).")
def main(quick: bool, output: Path, check: bool, chosen: tuple[str, ...]) -> None:
    """Measure direct, kernel DNAT, HAProxy, nginx and both of our data paths side by side."""
    console = Console(width=None if Console().is_terminal else 180)
    sizes = QUICK if quick else FULL
    wanted = [case for case in cases(sizes) if not chosen or case.name in chosen]
    if not wanted:
        raise click.BadParameter(f"cases are {', '.join(case.name for case in cases(sizes))}")
    results = measure(console, wanted, sizes)
    publish(console, results, wanted, sizes, output)
    misses = missed(results, wanted)
    for line in misses:
        console.print(f"[red]missed[/red] {line}", highlight=False)
    if not misses:
        console.print("[green]every goal reached[/green]")
    elif check:
        raise SystemExit(1)


def publish(
    console: Console, results: Results, wanted: list[Case], sizes: Sizes, output: Path
) -> None:
    """The table and the peers' configurations in the terminal, all of it as JSON, and the chart."""
    table.show(console, results, wanted)
    about, peers = machine.description(), configurations()
    for name, text in peers.items():
        console.print(f"\n[bold]{name}[/bold]", highlight=False)
        console.print(text, highlight=False, markup=False)
    for name, value in about.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    output.mkdir(parents=True, exist_ok=True)
    measured = results.as_json(wanted)
    written = {"machine": about, "rounds": sizes.rounds, "cases": measured, "peers": peers}
    (output / "bench.json").write_text(json.dumps(written, indent=1) + "\n")
    subtitle = f"{about['processors']}, Linux {about['kernel']}, {sizes.rounds} rounds"
    chart.draw(output / "bench.svg", results, wanted, subtitle)
    console.print(f"written: {output / 'bench.json'}, {output / 'bench.svg'}")


def measure(console: Console, wanted: list[Case], sizes: Sizes) -> Results:
    results = Results()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console.print("starting three labs ...")
    with contestants() as all_of_them:
        prepare([one.lab for one in all_of_them], sizes)
        total = len(wanted) * sum(one.rounds(sizes.rounds) for one in all_of_them)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            for case in wanted:
                for number in range(sizes.rounds):
                    for contestant in all_of_them:
                        if number >= contestant.rounds(sizes.rounds):
                            continue
                        progress.update(task, description=f"{case.title}: {contestant.name}")
                        results.add(case, contestant.name, _round(case, contestant))
                        progress.advance(task)
    return results


def _round(case: Case, contestant: Contestant) -> Round:
    spent = costs(contestant)
    traffic = case.run(contestant)
    return Round(traffic, spent())


if __name__ == "__main__":
    main()
