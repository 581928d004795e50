"""``vfsearch status``, ``logs`` and ``stop``: a sweep that runs in another process."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Group

    from vfsearch.cluster.driver import Driver

SweepName = Annotated[str, typer.Argument(help="Name of a sweep.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: vfsearch status paper --watch 5")(status)
    app.command(epilog="Example: vfsearch logs paper --follow")(logs)
    app.command(epilog="Example: vfsearch stop paper")(stop)


def detach(name: str) -> None:
    """Start this very command again in a process of its own, and follow it.

    An interrupt ends the following and nothing else.
    """
    from vfsearch.cli.show import console
    from vfsearch.cluster.driver import start

    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    driver = start(_folder(name), arguments)
    console.print(f"sweep {name} runs in process {driver.pid}; it goes on without this terminal")
    try:
        _show(driver, from_start=False)
    except KeyboardInterrupt:
        console.print(f"still running; see it again with: vfsearch logs {name} --follow")


def status(
    sweep: SweepName,
    watch: Annotated[
        float | None, typer.Option(help="Again every so many seconds, until interrupted.")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database.")] = None,
) -> None:
    """How far a sweep is: trials, rungs, GPUs, cost so far, time left."""
    import time
    from contextlib import suppress

    from rich.live import Live

    from vfsearch.cli.show import console

    if watch is None:
        console.print(_status(sweep, storage))
        return
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_status(sweep, storage), refresh=True)
            time.sleep(watch)


def _status(sweep: str, storage: str | None) -> "Group":
    from datetime import datetime

    from rich.console import Group

    from vfsearch.cli.live import brief
    from vfsearch.cli.show import number, seconds, table
    from vfsearch.search.budget import price_of
    from vfsearch.search.progress import progress_of
    from vfsearch.search.study import read_sweep

    config, study = read_sweep(sweep, storage)
    # Optuna's stamps are in local time, without a zone.
    seen = progress_of(study, config, now=datetime.now(), price=price_of(config.budget))
    of = f" of {seen.total}" if seen.total else ""
    done = sum(seen.states.get(state, 0) for state in ("complete", "pruned", "failed"))
    states = ", ".join(f"{count} {state}" for state, count in seen.states.items())
    lines = [f"sweep {sweep}: {done}{of} trials ended ({states or 'none yet'})"]
    if seen.best is not None:
        lines.append(f"best: t{seen.best[0]:03d} with {number(seen.best[1])}")
    if seen.rungs:
        lines.append("rungs: " + ", ".join(f"{i}: {n}" for i, n in enumerate(seen.rungs)))
    cost = "" if seen.dollars is None else f", ${seen.dollars:,.2f}"
    if seen.gpus:
        busy = f"GPUs busy: {seen.gpus_busy:g} of {seen.gpus:g}"
        lines.append(f"{busy}; so far {seen.gpu_hours:.2f} GPU-hours{cost}")
    if seen.running or done < (seen.total or 0):
        left = "not known yet" if seen.seconds_left is None else seconds(seen.seconds_left)
        lines.append(f"time left: {left}")
    rows = [
        (
            f"t{row.number:03d}",
            row.epoch,
            number(row.value),
            seconds(row.seconds),
            ", ".join(f"{key}={brief(value)}" for key, value in row.params.items()),
        )
        for row in seen.running
    ]
    metric = config.objectives[0].metric
    columns = ["running", ">epoch", f">{metric}", ">for", "parameters"]
    return Group(*lines, *([table("", columns, rows)] if rows else []))


def logs(
    sweep: SweepName,
    follow: Annotated[bool, typer.Option("--follow", help="Until the sweep ends.")] = False,
) -> None:
    """What the driver of a detached sweep printed; with --follow its exit code too."""
    driver = _driver(sweep)
    if follow:
        _show(driver, from_start=True)
    else:
        sys.stdout.write(driver.log.read_text(encoding="utf-8", errors="replace"))


def stop(sweep: SweepName) -> None:
    """End a detached sweep in order; --resume continues it."""
    from vfsearch.cli.show import console
    from vfsearch.cluster.driver import stop as end

    driver = _driver(sweep)
    was_alive = driver.alive
    end(driver)
    console.print(
        f"sweep {sweep} was stopped; --resume continues it"
        if was_alive
        else f"sweep {sweep} was not running"
    )


def _show(driver: "Driver", *, from_start: bool) -> None:
    from vfsearch.cluster.driver import find, follow
    from vfsearch.errors import ClusterError

    for text in follow(driver, from_start=from_start):
        sys.stdout.write(text)
        sys.stdout.flush()
    ended = find(driver.folder)
    if ended is None or ended.exit_code is None:
        raise ClusterError(f"the driver of {driver.folder.name} was killed; --resume continues it")
    if ended.exit_code:
        raise typer.Exit(ended.exit_code)


def _driver(sweep: str) -> "Driver":
    from vfsearch.cluster.driver import find
    from vfsearch.errors import ClusterError

    driver = find(_folder(sweep))
    if driver is None:
        raise ClusterError(f"sweep {sweep} was not started with --detach on this machine")
    return driver


def _folder(sweep: str) -> Path:
    from vfsearch.search.sweep import sweep_folder

    return sweep_folder(sweep)
