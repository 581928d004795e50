"""How results are shown: one console, a few tables; no computation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from vfsearch.evaluation.evaluate import ListResult

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=140)  # a file has no width that lines must keep to


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose columns named ``>x`` are aligned to the right."""
    out = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        right = column.startswith(">")
        name = column.removeprefix(">")
        out.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        out.add_row(*("" if cell is None else str(cell) for cell in row))
    return out


def seconds(value: float) -> str:
    """``75`` as ``1 min 15 s``."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s" if value < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(value: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


@contextmanager
def bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that appears with the first report; gives ``update(done, total)``."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task: list[TaskID] = []

        def update(done: int, total: int) -> None:
            if not task:
                task.append(progress.add_task(unit, total=total))
            progress.update(task[0], completed=done, total=total)

        yield update


def summary_table(title: str, results: Sequence["ListResult"]) -> Table:
    """The main metric of each list without strata: value, interval, chance, ceiling."""
    rows = []
    for result in results:
        if result.stratum == "U":
            metric, value = next(iter(result.metrics.items()))
            name = f"1:{result.gallery} {metric}" if result.kind == "match" else metric
            low, high = result.interval.get(metric, (None, None))
            rows.append(
                (
                    result.direction,
                    name,
                    number(value),
                    f"{number(low)} – {number(high)}",
                    number(result.chance.get(metric)),
                    number(result.ceiling.get(metric)),
                )
            )
    columns = ["", "metric", ">value", "95 % interval", ">chance", ">Bayes ceiling"]
    return table(title, columns, rows)


def results_table(title: str, results: Sequence["ListResult"]) -> Table:
    """Evaluated query lists: each metric beside its interval, chance, oracles and ceiling."""
    known = any(result.ceiling for result in results)
    columns = ["list", ">n", "metric", ">value", "95 % interval", ">chance", ">gender", ">g + n"]
    rows = []
    for result in results:
        for at, (metric, value) in enumerate(result.metrics.items()):
            low_high = result.interval.get(metric)
            row = [
                result.name if at == 0 else "",
                f"{result.n:,}" if at == 0 else "",
                metric,
                number(value),
                f"{number(low_high[0])} – {number(low_high[1])}" if low_high else "",
                number(result.chance.get(metric)),
                number(result.oracles.get("gender", {}).get(metric)),
                number(result.oracles.get("gender_nationality", {}).get(metric)),
            ]
            if known:
                row += [
                    number(result.ceiling.get(metric)),
                    number(result.fraction_of_bayes.get(metric)),
                ]
            rows.append(row)
    return table(title, columns + ([">Bayes", ">of Bayes"] if known else []), rows)


def number(value: float | None) -> str:
    """Three digits behind the point for shares, one for ranks."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
