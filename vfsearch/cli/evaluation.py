"""``vfsearch evaluate``, ``compare`` and ``gallery``: what a model can do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vfsearch.cli.lists import KIND, SeveralLists, read

if TYPE_CHECKING:
    from vfsearch.config import CorpusConfig
    from vfsearch.corpus.layout import Identity, SplitName
    from vfsearch.corpus.queries import QueryList
    from vfsearch.evaluation.embeddings import Embeddings
    from vfsearch.registry.assess import Assessment
    from vfsearch.tracking.connection import Connection

Model = Annotated[
    str,
    typer.Argument(
        help="Checkpoint folder, MLflow run id, models:/vfsearch@champion, champion, or EMB.npz."
    ),
]
Corpus = Annotated[Path | None, typer.Option(help="Corpus folder; default: the model's own.")]
SplitOption = Annotated[str, typer.Option(help="train, val or test.")]
Lists = Annotated[
    list[Path] | None, typer.Option("--queries", help="Query list, or several of them.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        cls=SeveralLists,
        epilog="Examples: vfsearch evaluate champion --corpus corpus --split test   |   "
        "vfsearch evaluate EMB.npz --csv vox1_test.csv --queries verify_v2f_test.txt",
    )(evaluate)
    app.command(
        cls=SeveralLists,
        epilog="Example: vfsearch compare A.npz B.npz --csv vox1_test.csv "
        "--queries match_v2f_2_test.txt",
    )(compare)
    app.command(epilog="Example: vfsearch gallery champion --corpus corpus --out gallery")(gallery)


def evaluate(
    model: Model,
    corpus: Corpus = None,
    split: SplitOption = "test",
    csv: Annotated[Path | None, typer.Option(help="CSV of identities, with EMB.npz.")] = None,
    queries: Lists = None,
    kind: Annotated[str | None, typer.Option(help=KIND)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the JSON document here.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Replicates of the intervals; 0: none.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of generated lists and of the bootstrap.")] = 0,
) -> None:
    """Matching, verification and retrieval, beside chance, oracles and the Bayes ceiling."""
    from vfsearch.cli.show import console, results_table, seconds
    from vfsearch.evaluation.evaluate import evaluate_lists, to_document

    _make_room(json)
    lists = _read_lists(queries, kind)
    if model.endswith(".npz"):
        embeddings, identities = _stored(model, csv, lists)
        with console.status("evaluating"):
            results = evaluate_lists(embeddings, lists, identities, bootstrap=bootstrap, seed=seed)
    else:
        with console.status("embedding and evaluating"):
            assessment, *_ = _assess(model, corpus, split, lists or None, bootstrap, seed)
        results = list(assessment.results)
        for note in assessment.notes:
            console.print(f"note: {note}", soft_wrap=True)
        if assessment.seen:
            console.print(
                f"warning: {len(assessment.seen)} of {assessment.identities} identities of this "
                "split were in the model's training: these figures do not measure generalisation"
            )
        console.print(
            f"{assessment.voices:,} voices and {assessment.faces:,} faces of "
            f"{assessment.identities} identities in {seconds(assessment.seconds)}"
        )
    console.print(results_table(model, results))
    if json is not None:
        _write_json(json, to_document(results))
        console.print(f"{json}", soft_wrap=True)


def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more models or .npz files.")],
    queries: Lists = None,
    csv: Annotated[Path | None, typer.Option(help="CSV of identities, with .npz files.")] = None,
    corpus: Corpus = None,
    split: SplitOption = "test",
    kind: Annotated[str | None, typer.Option(help=KIND)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the comparisons as JSON here.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Replicates of the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of lists, bootstrap and permutations.")] = 0,
) -> None:
    """Paired difference on the same queries, with interval and identity permutation test."""
    from dataclasses import asdict

    from vfsearch.cli.show import console, number, table
    from vfsearch.errors import UsageError
    from vfsearch.evaluation.significance import compare_lists
    from vfsearch.registry.comparison import same_split

    if len(set(models)) < 2 or len(set(models)) < len(models):
        raise UsageError(f"compare needs two or more different models, not {' '.join(models)}")
    _make_room(json)
    lists = _read_lists(queries, kind)
    embedded: dict[str, Embeddings] = {}
    identities: tuple[Identity, ...] = ()
    splits: dict[str, str] = {}
    with console.status("embedding and comparing"):
        for name in models:
            if name.endswith(".npz"):
                embedded[name], identities = _stored(name, csv, lists)
                continue
            assessment, *_ = _assess(name, corpus, split, lists or None, 0, seed)
            splits[name] = assessment.split_hash
            same_split(splits)
            embedded[name], identities = assessment.embeddings, assessment.store.identities
            lists = lists or list(assessment.lists)
        found = compare_lists(embedded, lists, identities, bootstrap=bootstrap, seed=seed)
    rows = [
        (
            one.name,
            one.metric,
            f"{one.second} − {one.first}",
            f"{one.difference:+.4f}",
            f"{one.interval[0]:+.4f} – {one.interval[1]:+.4f}",
            number(one.p_value),
            number(one.adjusted),
        )
        for one in found
    ]
    columns = ["list", "metric", "pair", ">difference", "95 % interval", ">p", ">p (Holm)"]
    console.print(table("paired comparison", columns, rows))
    if json is not None:
        _write_json(json, {"comparisons": [asdict(one) for one in found]})
        console.print(f"{json}", soft_wrap=True)


def gallery(
    model: Model,
    corpus: Corpus = None,
    split: SplitOption = "test",
    probes: Annotated[int, typer.Option(help="Probes per direction.")] = 8,
    top: Annotated[int, typer.Option(help="Nearest instances shown for each.")] = 10,
    out: Annotated[Path, typer.Option(help="Folder of the page and the film.")] = Path("gallery"),
    seed: Annotated[int, typer.Option(help="Chooses the probes.")] = 0,
    log: Annotated[
        bool, typer.Option(help="Keep both with the model's run, if it has one.")
    ] = True,
) -> None:
    """One page to see and hear what the model retrieves, and a film of it.

    Of a run or a registered model, both are also kept as artifacts of its run.
    """
    from vfsearch.cli.show import console
    from vfsearch.evaluation.showcase import write_showcase
    from vfsearch.registry.showing import log_showcase

    with console.status("embedding"):
        assessment, where, run_id = _assess(model, corpus, split, [], 0, seed)
    with console.status("writing the page and the film"):
        page, film = write_showcase(
            assessment.store,
            assessment.embeddings,
            where,
            out,
            title=f"Retrieval by {model}",
            probes=probes,
            top=top,
            seed=seed,
        )
    console.print(f"{page}", soft_wrap=True)
    console.print(f"{film}", soft_wrap=True)
    if log and run_id is not None:
        kept = log_showcase(_connect(), run_id, page, film)
        console.print(f"kept with the run: {kept}", soft_wrap=True)


def _read_lists(paths: list[Path] | None, kind: str | None) -> list["QueryList"]:
    return [read(path, kind) for path in paths or []]


def _stored(
    file: str, csv: Path | None, lists: list["QueryList"]
) -> tuple["Embeddings", tuple["Identity", ...]]:
    from vfsearch.corpus.layout import read_identities
    from vfsearch.errors import UsageError
    from vfsearch.evaluation.embeddings import Embeddings

    if csv is None or not lists:
        raise UsageError(f"{file}: stored embeddings need --csv and at least one --queries")
    return Embeddings.load(Path(file)), read_identities(csv)


def _assess(
    model: str,
    corpus: Path | None,
    split: str,
    lists: list["QueryList"] | None,
    bootstrap: int,
    seed: int,
) -> tuple["Assessment", "CorpusConfig", str | None]:
    """The assessment, where the corpus is, and the MLflow run that the model is of."""
    from vfsearch.config import CorpusConfig
    from vfsearch.registry.assess import assess
    from vfsearch.registry.resolve import resolve_model
    from vfsearch.training.checkpoint import read_state

    resolved = resolve_model(model, _connect)
    where = CorpusConfig(root=corpus) if corpus else read_state(resolved.folder).config.corpus
    name = split_name(split)
    made = assess(resolved.folder, where, name, queries=lists, bootstrap=bootstrap, seed=seed)
    return made, where, resolved.run_id


def _connect() -> "Connection":
    from vfsearch.config import TrackingConfig
    from vfsearch.tracking.connection import connect

    return connect(TrackingConfig())


def split_name(text: str) -> "SplitName":
    """The split that ``--split`` names."""
    from vfsearch.errors import UsageError

    match text:
        case "train" | "val" | "test":
            return text
        case _:
            raise UsageError(f"--split {text!r}: must be train, val or test")


def _make_room(path: Path | None) -> None:
    """The folder of a document, before the work that it is to hold."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def _write_json(path: Path, document: object) -> None:
    import json

    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
