"""``vfsearch race``: the best trials again with fresh seeds, and whether one of them wins."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vfsearch.search.race_record import RaceResult


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog="Example: vfsearch race first --top 3 --seeds 5")(race)


def race(
    sweep: Annotated[str, typer.Argument(help="Name of a finished sweep.")],
    top: Annotated[int, typer.Option(help="Finalists: the best completed trials.")] = 3,
    seeds: Annotated[int, typer.Option(help="Fresh seeds per finalist.")] = 3,
    bootstrap: Annotated[int, typer.Option(help="Draws of identities.")] = 2000,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: this machine.")] = None,
    storage: Annotated[str | None, typer.Option(help="URL of the study's database.")] = None,
) -> None:
    """Train the best trials again with fresh seeds; name a winner only if one is separated."""
    from vfsearch.cli.show import console
    from vfsearch.search.race import race as run
    from vfsearch.search.sweep import Mode

    with console.status("racing") as line:
        result = run(
            sweep,
            top=top,
            seeds=seeds,
            bootstrap=bootstrap,
            progress=line.update,
            mode=Mode(address=address),
            storage=storage,
        )
    show(result)
    console.print(f"next: vfsearch report {sweep}, vfsearch promote {sweep}")


def show(result: "RaceResult") -> None:
    """Print the finalists, the reasons and the verdict."""
    from vfsearch.cli.show import console, number, table

    seeds = {finalist.number: finalist.values for finalist in result.finalists}
    rows = [
        (
            f"t{standing.number:03d}",
            number(standing.mean),
            f"{number(standing.interval[0])} – {number(standing.interval[1])}",
            ", ".join(number(value) for value in seeds[standing.number]),
        )
        for standing in result.standings
    ]
    title = f"race on {result.metric}, {result.seeds} fresh seeds each"
    console.print(table(title, [">trial", ">mean", "95 % interval", "seeds"], rows))
    for why in (*result.out, *result.decision.reasons):
        console.print(why, soft_wrap=True)
    console.print(f"[bold]{result.decision.text}[/bold]", soft_wrap=True)
