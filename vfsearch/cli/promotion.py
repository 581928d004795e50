"""``vfsearch promote``, ``rollback``, ``history`` and ``search``: the model in use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfsearch.registry.promotion import Promotion

POLICY = Path("tracking/promotion.yaml")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog="Example: vfsearch promote demo --dry-run")(promote)
    app.command(epilog="Example: vfsearch rollback --why 'worse on telephone voices'")(rollback)
    app.command(epilog="Example: vfsearch history")(history)
    app.command(epilog="Example: vfsearch search --voice clip.wav --faces photos --top 10")(search)


def promote(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep; its best trial is the candidate.")],
    policy: Annotated[
        Path | None, typer.Option(help=f"Promotion policy; default: {POLICY} if it exists.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus; default: the sweep's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, but change nothing.")] = False,
) -> None:
    """Evaluate the best model and the champion on the test split; exit code 7 if refused."""
    from vfsearch.cli.show import console
    from vfsearch.errors import PromotionRefused

    with console.status("promoting") as line:
        made = run(sweep, policy, corpus, dry_run, line.update)
    show(made, full=True)
    if made.outcome in ("refused", "challenger") and made.decision is not None:
        failed = "; ".join(reason.text for reason in made.decision.failed)
        raise PromotionRefused(f"{sweep} is not promoted: {failed}")


def run(
    sweep: str,
    policy: Path | None,
    corpus: Path | None,
    dry_run: bool,
    progress: "Callable[[str], None]",
) -> "Promotion":
    """Promote a sweep's best trial (also a step of the demo)."""
    from vfsearch.config import CorpusConfig
    from vfsearch.registry.policy import load_policy
    from vfsearch.registry.promotion import promote as decide_and_move
    from vfsearch.search.results import best_run
    from vfsearch.tracking.connection import connect

    best = best_run(sweep)
    rules = load_policy(policy or (POLICY if POLICY.exists() else None))
    return decide_and_move(
        connect(best.config.base.tracking),
        best.run_id,
        CorpusConfig(root=corpus) if corpus else best.config.base.corpus,
        rules,
        dry_run=dry_run,
        progress=progress,
    )


def show(made: "Promotion", *, full: bool) -> None:
    """Print a promotion's figures (all of them or the main ones), reasons and outcome."""
    from vfsearch.cli.show import console, results_table, summary_table, table

    if made.candidate is not None:
        draw = results_table if full else summary_table
        console.print(draw("the candidate on the test split", made.candidate.results))
    if made.decision is not None:
        rows = [
            ("yes" if reason.passed else "NO", reason.rule, reason.about, reason.text)
            for reason in made.decision.reasons
        ]
        console.print(table("the policy", ["passed", "rule", "about", "why"], rows))
    prefix = "dry run: " if made.dry_run else ""
    texts = {
        "promoted": f"run {made.run_id} is the champion",
        "challenger": f"run {made.run_id} is the challenger; the champion stays",
        "refused": f"run {made.run_id} is refused",
        "unchanged": f"run {made.run_id} is the champion already; nothing is changed",
    }
    version = f" (models:/{made.name}/{made.version})" if made.version else ""
    console.print(f"{prefix}{texts[made.outcome]}{version}", soft_wrap=True)
    if made.decision_uri:
        console.print(f"decision: {made.decision_uri}", soft_wrap=True)


def rollback(
    why: Annotated[str, typer.Option(help="Kept in the history.")] = "rolled back by hand",
) -> None:
    """Make the champion before the present one champion again."""
    from vfsearch.cli.show import console
    from vfsearch.config import TrackingConfig
    from vfsearch.registry.rollback import rollback as roll
    from vfsearch.tracking.connection import connect

    record = roll(connect(TrackingConfig()), why=why)
    console.print(f"version {record.version} is the champion again (was {record.previous})")


def history() -> None:
    """Who held the champion's alias, when and why."""
    from vfsearch.cli.show import console, table
    from vfsearch.config import TrackingConfig
    from vfsearch.registry.rollback import history as read
    from vfsearch.tracking.connection import connect

    records = read(connect(TrackingConfig()))
    rows = [(r.serial, r.at, r.event, r.version, r.previous, r.by, r.why) for r in records]
    columns = [">no.", "at (UTC)", "event", ">version", ">before", "by", "why"]
    console.print(table("champions", columns, rows))


def search(
    voice: Annotated[Path, typer.Option(help="A voice (WAV, 16 kHz).")],
    faces: Annotated[Path, typer.Option(help="Folder of pictures (JPG).")],
    top: Annotated[int, typer.Option(help="Faces to show.")] = 10,
    model: Annotated[str, typer.Option(help="As in vfsearch evaluate.")] = "champion",
) -> None:
    """Rank the pictures of a folder by how well they fit a voice."""
    from vfsearch.cli.show import console, number, table
    from vfsearch.config import TrackingConfig
    from vfsearch.registry.resolve import resolve_model
    from vfsearch.registry.searching import search as rank
    from vfsearch.tracking.connection import connect

    resolved = resolve_model(model, lambda: connect(TrackingConfig()))
    with console.status("embedding"):
        found = rank(resolved.folder, voice, faces, top)
    rows = [(hit.rank, number(hit.score), hit.path) for hit in found.matches]
    console.print(f"{voice} among {found.searched} faces, by {model}", soft_wrap=True)
    console.print(table("", [">rank", ">cosine", "face"], rows))
    for path, reason in found.left_out:
        console.print(f"left out {path}: {reason}", soft_wrap=True)
