"""``vfsearch space``: look at a search space before a sweep."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at a search space before a sweep.")


@app.callback()
def _group() -> None:
    """Keep ``space check`` a subcommand."""


@app.command(epilog="Example: vfsearch space check search_spaces/demo.yaml")
def check(
    file: Annotated[Path, typer.Argument(help="Search space (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE override.")] = None,
) -> None:
    """Print the space, its size and five samples; exit code 2 and every error if it is wrong."""
    from vfsearch.cli.show import console, table
    from vfsearch.search.loading import load_sweep
    from vfsearch.search.space import SearchSpace

    config = load_sweep(file, set_ or [])
    described = SearchSpace(config).describe()
    columns = list(dict.fromkeys(key for row in described.rows for key in row))
    rows = [[row.get(column, "") for column in columns] for row in described.rows]
    console.print(table(f"{described.name} ({file})", columns, rows))
    for objective in config.objectives:
        console.print(f"{objective.direction} {objective.metric}")
    for constraint in config.constraints:
        console.print(f"subject to {constraint}", soft_wrap=True)
    budget = config.budget.model_dump(exclude_defaults=True)
    limits = ", ".join(f"{key} {value}" for key, value in budget.items())
    console.print(
        f"{config.sampler.name} proposes, pruner {config.pruner.name}, budget: {limits}",
        soft_wrap=True,
    )
    size = "a continuum" if described.size is None else f"{described.size:,} points"
    console.print(f"{described.dimensions} parameters, {size}; samples:")
    for point in described.samples:
        text = ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in point.items()
        )
        console.print(f"  {text}", soft_wrap=True)
