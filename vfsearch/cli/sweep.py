"""``vfsearch sweep`` and what one asks of a sweep afterwards."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vfsearch.search.definition import SweepConfig
    from vfsearch.search.resources import Packing

SweepName = Annotated[str, typer.Argument(help="Name of a sweep.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: vfsearch sweep search_spaces/demo.yaml --name first --trials 20")(
        sweep
    )
    app.command(epilog="Example: vfsearch trials demo --json")(trials)
    app.command(epilog="Example: vfsearch report demo --out report.html")(report)
    app.command(epilog="Example: vfsearch ui demo")(ui)
    app.command(epilog="Example: vfsearch sync")(sync)


def sweep(
    file: Annotated[Path, typer.Argument(help="Search space (YAML).")],
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep; default: the file's.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    workers_per_trial: Annotated[int | None, typer.Option(help="Data-parallel workers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue or extend the sweep.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE override.")] = None,
    cold: Annotated[bool, typer.Option("--cold", help="New worker processes per trial.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: this machine.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in a process of its own, and follow it.")
    ] = False,
) -> None:
    """Search: Ray Tune executes, Optuna decides, one durable study holds the truth."""
    from vfsearch.cli.show import console
    from vfsearch.search.loading import load_sweep

    overrides = list(set_ or [])
    for key, value in (
        ("name", name),
        ("budget.trials", trials),
        ("workers.count", workers_per_trial),
    ):
        if value is not None:
            overrides.append(f"{key}={value}")
    config = load_sweep(file, overrides)
    if detach:
        from vfsearch.cli.driver import detach as start

        start(config.name)
        return
    run(config, resume=resume, cold=cold, address=address)
    leaderboard(config.name)
    console.print(
        f"next: vfsearch report {config.name}, vfsearch ui {config.name}, "
        f"vfsearch promote {config.name}"
    )


def run(
    config: "SweepConfig", *, resume: bool, cold: bool = False, address: str | None = None
) -> None:
    """Run a sweep with its progress on the terminal (also a step of the demo)."""
    from vfsearch.cli.live import screen
    from vfsearch.cli.show import console
    from vfsearch.search.budget import price_of
    from vfsearch.search.pack_book import why_alone
    from vfsearch.search.sweep import Mode, run_sweep

    def announce(packed: "Packing", left: float | None) -> None:
        console.print(announcement(packed, left, price_of(config.budget)))

    mode = Mode(address=address, warm=not cold, announce=announce)
    if config.pack > 1 and (reason := why_alone(config)) is not None:
        console.print(f"trials train alone, not in packs of {config.pack}: {reason}")
    with screen(config) as watcher:
        outcome = run_sweep(config, resume=resume, watcher=watcher, mode=mode)
    console.print(f"sweep {outcome.name} ended: {outcome.stop_reason}")


def announcement(packed: "Packing", left: float | None, price: float | None) -> str:
    """How trials will lie on the cluster, and what the rest will take and cost if that is known.

    Args:
        packed: how they lie.
        left: seconds.
        price: dollars per GPU-hour.
    """
    from vfsearch.cli.show import seconds

    parts = [str(packed)]
    if left is not None:
        parts.append(f"est. {seconds(left)}")
        if price is not None and packed.gpus_per_trial:
            hours = left / 3600 * packed.trials * packed.gpus_per_trial
            parts.append(f"${hours * price:,.0f}")
    return ", ".join(parts)


def leaderboard(name: str, top: int = 20, storage: str | None = None) -> None:
    """Print the trials of a sweep, best first."""
    from vfsearch.cli.live import brief
    from vfsearch.cli.show import console, number, seconds, table
    from vfsearch.search.analysis import trials_table
    from vfsearch.search.results import standings
    from vfsearch.search.study import read_sweep

    config, study = read_sweep(name, storage)
    rows = standings(trials_table(study), config)
    params = list(config.parameters)
    metrics = [objective.metric for objective in config.objectives]
    # Broken at the dots, long names leave room for the figures.
    names = [re.sub(r"([./])", r"\1\n", name) for name in (*metrics, *params)]
    columns = [">trial", "state", *(f">{name}" for name in names), ">epochs", ">time", ">retries"]
    cells = [
        (
            f"t{row.number:03d}",
            row.state,
            *(number(value) for value in (row.reached or [None] * len(metrics))),
            *(brief(row.params[param]) if param in row.params else "" for param in params),
            row.epochs,
            seconds(row.seconds) if row.seconds is not None else "",
            row.retries or "",
        )
        for row in rows[:top]
    ]
    more = f" (the best {top} of {len(rows)})" if len(rows) > top else ""
    console.print(table(f"sweep {name}{more}", columns, cells))


def trials(
    sweep: SweepName,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database.")] = None,
) -> None:
    """Every trial: state, parameters, values, epochs, run, seconds, retries, reason."""
    from vfsearch.cli.show import console
    from vfsearch.search.analysis import to_document, trials_table
    from vfsearch.search.study import read_sweep

    if not json:
        leaderboard(sweep, top=1_000_000, storage=storage)
        for row in trials_table(read_sweep(sweep, storage)[1]):
            if row.reason is not None:
                console.print(f"t{row.number:03d} {row.state}: {row.reason}", soft_wrap=True)
        return
    import json as json_module

    document = to_document(trials_table(read_sweep(sweep, storage)[1]))
    console.print(json_module.dumps(document, indent=2), soft_wrap=True, markup=False)


def report(
    sweep: SweepName,
    out: Annotated[Path | None, typer.Option(help="HTML file; default: report-SWEEP.html.")] = None,
    dollars_per_gpu_hour: Annotated[float | None, typer.Option(help="For the cost.")] = None,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database.")] = None,
) -> None:
    """One self-contained page: leaderboard, history, importance, what pruning saved, costs.

    It is also put among the artifacts of the sweep's run in MLflow.
    """
    from vfsearch.cli.show import console
    from vfsearch.search.race_record import report_extras
    from vfsearch.search.report import write_report
    from vfsearch.search.study import read_sweep
    from vfsearch.search.tracks import log_report

    config, study = read_sweep(sweep, storage)
    page = write_report(
        study,
        out or Path(f"report-{sweep}.html"),
        report_extras(study, dollars=dollars_per_gpu_hour),
    )
    console.print(f"{page}", soft_wrap=True)
    trouble = log_report(config, page)
    if trouble is not None:
        console.print(f"not in MLflow yet, vfsearch sync sends it: {trouble}", soft_wrap=True)


def ui(
    sweep: SweepName,
    browser: Annotated[bool, typer.Option(help="Open it in a browser too.")] = True,
) -> None:
    """Print (and open) the comparison of the sweep's trials in MLflow."""
    from vfsearch.cli.show import console

    url = link(sweep)
    console.print(url, soft_wrap=True)
    if browser:
        typer.launch(url)


def link(sweep: str) -> str:
    """Prepare the comparison in MLflow and return its address."""
    from vfsearch.search.study import read_sweep
    from vfsearch.tracking.connection import connect
    from vfsearch.tracking.view import share_view

    config, _ = read_sweep(sweep)
    objective = config.objectives[0].metric
    return share_view(
        connect(config.base.tracking),
        sweep,
        parameters=list(config.parameters),
        objective=objective,
        log_scaled=[name for name, p in config.parameters.items() if getattr(p, "log", False)],
        curves=[other.metric for other in config.objectives[1:]],
        summary=f"best/{objective}",
    )


def sync(
    sweep: Annotated[str | None, typer.Option(help="Only this sweep's runs.")] = None,
) -> None:
    """Send what an earlier, killed process left; close its runs. Exit code 5 if some is left."""
    from vfsearch.cli.show import console
    from vfsearch.config import home
    from vfsearch.tracking.connection import connect
    from vfsearch.tracking.sync import sync_all

    with console.status("sending") as line:
        done = sync_all(home() / "spool", connect, sweep=sweep, progress=line.update)
    console.print(
        f"{len(done.sent)} runs sent ({done.rows:,} rows, {done.files} files), "
        f"{len(done.closed)} closed, {len(done.live)} left to their live process"
    )
    for name, why in done.failed:
        console.print(f"{name}: {why}", soft_wrap=True)
    raise typer.Exit(5 if done.failed else 0)
