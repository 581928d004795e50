"""``vfsearch train``: one run, the same code path as a trial."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog="Example: vfsearch train configs/small.yaml --set loss.margin=5.4")(train)


def train(
    config: Annotated[Path, typer.Argument(help="Settings of the run (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE override.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of checkpoints; an existing run goes on.")
    ] = Path("run"),
) -> None:
    """Train one model with the settings of a file."""
    from vfsearch.cli.live import training_screen
    from vfsearch.cli.show import console
    from vfsearch.config import load_run
    from vfsearch.search.single import run_single

    settings = load_run(config, set_ or [])
    with training_screen(settings) as watcher:
        outcome = run_single(settings, out, watcher)
    console.print(
        f"best {settings.evaluation.select} {outcome.best_value:.4f} at epoch "
        f"{outcome.best_epoch}: {out / 'checkpoints' / 'best'}",
        soft_wrap=True,
    )
