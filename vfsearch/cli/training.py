"""``vfsearch train``: one run, the same workers and the same code as a trial."""

from collections.abc import Mapping
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
        Path | None, typer.Option(help="Folder of the run; one that is there goes on.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in MLflow; default: the file's.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: this machine.")] = None,
) -> None:
    """Train one model with the settings of a file."""
    from vfsearch.cli.show import console, number, seconds
    from vfsearch.config import home, load_run
    from vfsearch.search.single import run_single

    settings = load_run(config, set_ or [])
    called = name or config.stem
    folder = out or home() / "runs" / called
    select = settings.evaluation.select

    def progress(epoch: int, metrics: Mapping[str, float]) -> None:
        spent = sum(value for key, value in metrics.items() if key.startswith("time/"))
        console.print(
            f"epoch {epoch:>3}  loss {number(metrics.get('train/loss')):>7}  "
            f"{select} {number(metrics.get(select)):>6}  {seconds(spent)}"
        )

    console.print(f"{called}: {folder} (starting the workers)", soft_wrap=True)
    outcome = run_single(settings, folder, name=called, progress=progress, address=address)
    console.print(
        f"best {select} {outcome.best_value:.4f} at epoch {outcome.best_epoch} of "
        f"{outcome.epoch}: {outcome.out / 'checkpoints' / 'best'}",
        soft_wrap=True,
    )
    if outcome.run_id:
        console.print(f"MLflow run {outcome.run_id}")
