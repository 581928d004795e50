"""``python -m benchmarks``: every script in its own process, then one table with the goals.

Without names, the scripts that together fit 15 minutes on 2 cores; ``--all`` adds the long ones.
Each can be run alone as well, ``python -m benchmarks.retrieval``.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.record import Row, met, read


@dataclass(frozen=True)
class Script:
    """A module of this package whose ``main`` records rows under the names of ``results``."""

    name: str
    what: str
    seconds: float
    """About how long it takes on 2 cores."""
    results: tuple[str, ...]
    """Names that it hands to ``record``; those that another device would write may be absent."""
    long: bool = False
    """Left out of ``make bench``."""


SCRIPTS = (
    Script("retrieval", "retrieval at the paper's size", 30, ("retrieval-cpu", "retrieval-cuda")),
    Script("step", "the training step at batch 16", 150, ("step-cpu", "step-cuda")),
    Script("evaluation", "lists, metrics, intervals", 60, ("evaluation",)),
    Script("tracking", "a training step with servers 200 ms away", 200, ("tracking",)),
    Script("data", "decoding, the store, batches, shared memory", 120, ("data",)),
    Script("engine", "asking, reports, decisions up to 10,000 trials", 120, ("engine",)),
    Script("packed", "packs of runs on features", 60, ("packed",)),
    Script("communication", "bytes that the workers of a trial send", 60, ("communication",)),
    Script("scaling", "what workers add to a step, and what runs beside", 40, ("scaling",)),
    Script("start", "the command line before it works", 30, ("start",)),
    Script("warm", "what a trial costs beside its training", 240, ("warm",), long=True),
    Script("limits", "what pairs of 600 identities permit", 50, ("limits",), long=True),
    Script("learn", "what the losses learn, beside the ceiling", 900, ("learn",), long=True),
)


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Scripts; default: all that are not long.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="The long ones, too.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Run nothing, show what is kept.")] = False,
) -> None:
    """Run benchmarks and print every figure beside its goal."""
    console = Console()
    known = {script.name: script for script in SCRIPTS}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        console.print(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}", markup=False)
        raise typer.Exit(2)
    chosen = [known[name] for name in names or []] or [s for s in SCRIPTS if every or not s.long]
    failed = []
    for script in [] if show else chosen:
        console.rule(f"{script.name}: {script.what}, about {script.seconds:.0f} s on 2 cores")
        started = time.perf_counter()
        # A process each: peak memory, threads and compiled kernels are then its own.
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{script.name}"], check=False)
        if done.returncode:
            failed.append(script.name)
        console.print(f"[dim]{time.perf_counter() - started:.0f} s[/dim]")
    console.print(_table(chosen))
    for name in failed:
        console.print(f"{name} failed", style="bold red")
    raise typer.Exit(1 if failed else 0)


def _table(scripts: list[Script]) -> Table:
    table = Table(title="Benchmarks", title_justify="left")
    for column in ("benchmark", "figure"):
        table.add_column(column)
    for column in ("value", "goal"):
        table.add_column(column, justify="right")
    table.add_column("")
    for script in scripts:
        for name in script.results:
            for row in read(name):
                table.add_row(
                    name, escape(row["what"]), _figure(row), escape(row["goal"]), _mark(row)
                )
        table.add_section()
    return table


def _figure(row: Row) -> str:
    value = row["value"]
    text = f"{value:,.0f} {row['unit']}" if abs(value) >= 1000 else f"{value:.3g} {row['unit']}"
    if "interval" in row:
        text += f" [{', '.join(f'{bound:.3g}' for bound in row['interval'])}]"
    return escape(text)


def _mark(row: Row) -> str:
    reached = met(row)
    return "" if reached is None else "[green]met[/green]" if reached else "[red]missed[/red]"


if __name__ == "__main__":
    typer.run(main)
