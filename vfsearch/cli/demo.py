"""``vfsearch demo``: the main job on this machine, step by step, as the single commands do it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vfsearch.registry.assess import Assessment

IDENTITIES, FILES, SEED = 240, 6, 1
SPLIT = (0.65, 0.15, 0.20)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog="Example: vfsearch demo   (or: make demo)")(demo)


def demo(
    space: Annotated[Path, typer.Option(help="Search space.")] = Path("search_spaces/demo.yaml"),
    name: Annotated[
        str, typer.Option(help="Name of the sweep; a finished one is reused.")
    ] = "demo",
) -> None:
    """Corpus, servers, sweep, promotion, gallery; what is there already is reused."""
    from vfsearch.cli import promotion, sweep
    from vfsearch.cli.show import bar, console, seconds, summary_table, table
    from vfsearch.config import home
    from vfsearch.corpus.synth import Recipe, synthesise
    from vfsearch.errors import PromotionRefused
    from vfsearch.search.loading import load_sweep
    from vfsearch.tracking import stack

    corpus = home() / "demo-corpus"
    config = load_sweep(space, [f"name={name}", f"corpus.root={corpus}"])
    spent: dict[str, float] = {}

    @contextmanager
    def step(title: str) -> Iterator[None]:
        started = time.monotonic()
        console.print(f"[bold]{len(spent) + 1}/6 {title}[/bold]")
        yield
        spent[title] = time.monotonic() - started

    with step("corpus"), bar("identities") as progress:
        recipe = Recipe(identities=IDENTITIES, voices=FILES, faces=FILES, seed=SEED, split=SPLIT)
        made = synthesise(corpus, recipe, progress=progress)
        state = "reused" if made.reused else "written"
        console.print(
            f"{IDENTITIES} identities, {FILES} voices and faces each, {state}: {corpus}",
            soft_wrap=True,
        )
    with step("MLflow and S3 on loopback"), console.status("starting") as line:
        info = stack.up(home(), progress=line.update)
        console.print(f"MLflow {info.tracking_uri}, S3 {info.s3_endpoint}")
    with step("sweep"):
        sweep.run(config, resume=_exists(name))
    with step("promotion"), console.status("promoting") as line:
        promoted = promotion.run(name, None, None, False, line.update)
    if promoted.champion_before is None and promoted.outcome != "promoted":
        promotion.show(promoted, full=True)
        raise PromotionRefused(f"sweep {name} has no model that the policy accepts; see above")
    with step("gallery"), console.status("embedding and drawing"):
        page, champion = _champion(home() / "demo-gallery", corpus, evaluate=not promoted.candidate)
    with step("report"):
        report = _report(name)
        link = sweep.link(name)
    sweep.leaderboard(name)
    best = _best(name)
    console.print(f"best trial: {best}", soft_wrap=True)
    promotion.show(promoted, full=False)
    if champion.results:
        console.print(summary_table("the champion on the test split", champion.results))
    spent["all"] = sum(spent.values())
    console.print(
        table("where the time went", ["step", ">time"], [(k, seconds(v)) for k, v in spent.items()])
    )
    console.print(f"compare the trials in MLflow:  {link}", soft_wrap=True)
    console.print(f"report of the sweep:           {report}", soft_wrap=True)
    console.print(f"see and hear the champion:     {page}", soft_wrap=True)
    console.print("stop the servers:              .venv/bin/vfsearch stack down  (nothing is lost)")


def _exists(name: str) -> bool:
    from vfsearch.errors import SweepError
    from vfsearch.search.study import read_sweep

    try:
        read_sweep(name)
    except SweepError:
        return False
    return True


def _best(name: str) -> str:
    from vfsearch.cli.live import brief
    from vfsearch.search.results import best_run

    row = best_run(name).row
    return f"t{row.number:03d}, " + ", ".join(f"{k}={brief(v)}" for k, v in row.params.items())


def _champion(out: Path, corpus: Path, *, evaluate: bool) -> tuple[Path, "Assessment"]:
    """The champion's gallery, and its test metrics if the promotion has not just made them."""
    from vfsearch.config import CorpusConfig, TrackingConfig
    from vfsearch.evaluation.showcase import write_showcase
    from vfsearch.registry.assess import assess
    from vfsearch.registry.resolve import resolve_model
    from vfsearch.registry.showing import log_showcase
    from vfsearch.tracking.connection import connect

    where = CorpusConfig(root=corpus)
    connection = connect(TrackingConfig())
    model = resolve_model("champion", lambda: connection)
    made = assess(
        model.folder,
        where,
        "test",
        queries=None if evaluate else [],
        galleries=(2, 10),
        strata=("U",),
    )
    title = "Retrieval by the demo's champion"
    page, film = write_showcase(made.store, made.embeddings, where, out, title=title)
    if model.run_id is not None:
        log_showcase(connection, model.run_id, page, film)
    return page, made


def _report(name: str) -> Path:
    from vfsearch.config import home
    from vfsearch.search.race_record import report_extras
    from vfsearch.search.report import write_report
    from vfsearch.search.study import read_sweep

    study = read_sweep(name)[1]
    return write_report(study, home() / f"report-{name}.html", report_extras(study))
