"""A checkpoint on a split: embedded, measured on query lists, beside chance, oracles and ceiling.

``vfsearch evaluate`` and every promotion run this same code.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vfsearch.config import CorpusConfig, EvaluationConfig, RunConfig
from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.layout import SplitName
from vfsearch.corpus.queries import QueryList
from vfsearch.corpus.query_generation import Instances, generate
from vfsearch.corpus.store import Store, open_store
from vfsearch.corpus.strata import Stratum
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.epoch import first_instances, metric_keys
from vfsearch.evaluation.evaluate import ListResult, evaluate_lists
from vfsearch.evaluation.identity import evaluation_key
from vfsearch.registry.evidence import Figure
from vfsearch.training.checkpoint import MODEL, STATE, load_model, parse_state, read_file

if TYPE_CHECKING:
    import torch

STRATA: tuple[Stratum, ...] = ("U", "G", "N", "GN")
_LESS_IS_BETTER = ("eer_", "median_rank_")


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What a checkpoint measured on a split."""

    config: RunConfig
    """Settings of the checkpoint's run."""
    split: SplitName
    split_hash: str
    dataset: str
    """Version of the evaluation, split and query lists; see ``evaluation.identity``."""
    identities: int
    voices: int
    faces: int
    results: tuple[ListResult, ...]
    figures: Mapping[str, Figure]
    """Metrics that grow with quality, named as in tracked runs but for the prefix."""
    others: Mapping[str, float]
    """Metrics of which less is better: EER, median rank."""
    lists: tuple[QueryList, ...]
    embeddings: Embeddings
    store: Store
    notes: tuple[str, ...]
    """Lists that the split is too small for, files that were left out."""
    seen: tuple[str, ...]
    """Identities of the split that the model was trained on (VoxCeleb1 ids)."""
    synthetic: bool
    seconds: float
    """To embed and to score."""
    bytes: int
    """Of the weights."""


def assess(
    folder: Path,
    corpus: CorpusConfig,
    split: SplitName = "test",
    *,
    queries: Sequence[QueryList] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    galleries: Sequence[int] = (2, 5, 10),
    strata: Sequence[Stratum] = STRATA,
    instances: int | None = None,
    device: "torch.device | str | None" = None,
) -> Assessment:
    """Embed a split with a checkpoint and evaluate it on query lists.

    Args:
        folder: the checkpoint.
        corpus: whose split.
        split: which one.
        queries: lists to use; ``None``: generated, those that the split is too small for left out.
        bootstrap: replicates of the intervals; 0 skips them.
        seed: of generated lists and of the bootstrap.
        galleries: sizes N of generated 1:N lists.
        strata: of generated lists.
        instances: at most this many voices and faces per identity; ``None``: all.
        device: where to embed; ``None``: a GPU if there is one.

    Raises:
        CheckpointError, CorpusError, QueryError: one of the three is missing or malformed.
    """
    import torch

    started = time.perf_counter()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, config = load_model(folder, where)
    trained = parse_state(read_file(folder, STATE), folder / STATE).identities
    # Faces are decoded at the size that this model takes, whatever the corpus was stored for.
    store = open_store(corpus.model_copy(update={"face_size": config.corpus.face_size}), split)
    voices = first_instances(store.voice_identity, instances)
    faces = first_instances(store.face_identity, instances)
    notes = [f"left out: {path} {reason}" for path, reason in store.excluded]
    lists = tuple(queries or ())
    if queries is None:
        made = generate(
            Instances(
                voice_paths=[store.voice_paths[row] for row in voices],
                voice_identity=store.voice_identity[voices],
                face_paths=[store.face_paths[row] for row in faces],
                face_identity=store.face_identity[faces],
            ),
            store.identities,
            split=split,
            n=galleries,
            strata=strata,
            seed=seed,
            impossible="drop",
        )
        lists = made.lists
        notes += made.notes
    settings: EvaluationConfig = config.evaluation
    embeddings = embed_split(model, store, settings, device=where, voices=voices, faces=faces)
    truth = Truth.load(corpus.root)
    results = evaluate_lists(
        embeddings,
        lists,
        store.identities,
        bootstrap=bootstrap,
        seed=seed,
        truth=truth,
        device=where,
    )
    figures, others = _figures(lists, results)
    known = set(trained)
    return Assessment(
        config=config,
        split=split,
        split_hash=store.split_hash,
        dataset=evaluation_key(store.split_hash, lists),
        identities=len(store.identities),
        voices=len(voices),
        faces=len(faces),
        results=tuple(results),
        figures=figures,
        others=others,
        lists=lists,
        embeddings=embeddings,
        store=store,
        notes=tuple(notes),
        seen=tuple(who.voice_id for who in store.identities if who.voice_id in known),
        synthetic=truth is not None,
        seconds=time.perf_counter() - started,
        bytes=(folder / MODEL).stat().st_size,
    )


def metric_names(lists: Sequence[QueryList]) -> list[list[str]]:
    """Names of each list's metrics, without prefix; a second list of one kind adds its name."""
    used: set[str] = set()
    out = []
    for queries in lists:
        names = [key.removeprefix("/") for key in metric_keys(queries, "")]
        if used.intersection(names):
            names = [f"{name}:{queries.name}" for name in names]
        used.update(names)
        out.append(names)
    return out


def _figures(
    lists: Sequence[QueryList], results: Sequence[ListResult]
) -> tuple[dict[str, Figure], dict[str, float]]:
    figures: dict[str, Figure] = {}
    others: dict[str, float] = {}
    for names, result in zip(metric_names(lists), results, strict=True):
        for name, (key, value) in zip(names, result.metrics.items(), strict=True):
            if name.startswith(_LESS_IS_BETTER):
                others[name] = value
                continue
            low, high = result.interval.get(key, (float("nan"), float("nan")))
            figures[name] = Figure(
                value=value,
                low=low,
                high=high,
                chance=result.chance[key],
                bayes=result.ceiling.get(key),
                oracles={oracle: found[key] for oracle, found in result.oracles.items()},
            )
    return figures, others
