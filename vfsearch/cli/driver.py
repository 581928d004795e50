"""``vfsearch status``, ``logs`` and ``stop``: a sweep that runs in another process."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vfsearch.cluster.driver import Driver

SweepName = Annotated[str, typer.Argument(help="Name of a sweep.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
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
