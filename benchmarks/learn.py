"""Proof that the method learns: the share of the Bayes ceiling that each alignment reaches.

1,000 identities, split by identity, are encoded once by fixed statistics and their discriminants;
the paper's losses train the heads, three seeds each. Checkpoints are chosen on the validation
identities. How the settings were found: docs/learning.md.

``python -m benchmarks.learn [FOLDER]``: corpus and features are made in FOLDER and reused.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Row, record
from vfsearch.config import CorpusConfig, FaceConfig, RunConfig, VoiceConfig, home
from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.features import Features, open_features
from vfsearch.corpus.queries import QueryList
from vfsearch.corpus.query_generation import Instances, generate
from vfsearch.corpus.synth import Recipe, synthesise
from vfsearch.evaluation.bootstrap import draw, replicates
from vfsearch.evaluation.discriminants import FEATURES, write_discriminants
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.evaluate import evaluate_lists
from vfsearch.evaluation.extract import extract
from vfsearch.evaluation.measure import measure, resolve
from vfsearch.training.checkpoint import load_model
from vfsearch.training.loop import EpochReport, Stores, train

RECIPE = Recipe(identities=1000, voices=6, faces=6, seed=11)
SEEDS = (0, 1, 2)
BOOTSTRAP = 1000
GOALS = {"auc U": ">= 0.95", "auc G": ">= 0.85"}
"""Of the two variants that are the whole method."""
CPU = torch.device("cpu")
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "implicit": {"loss": {"explicit": 0.0}},
    "explicit": {"loss": {"implicit": 0.0}},
    "both": {},
    "both, re-weighted": {"reweighting": {"schedule": "soft", "temperature": 1.0, "every": 10}},
}
BASE: dict[str, dict[str, Any]] = {
    "model": {
        "face": {"encoder": "discriminants", "frozen": True},
        "voice": {"encoder": "discriminants", "frozen": True},
        "embedding_dim": 128,
        "dropout": 0.0,
        "head_hidden": 64,
    },
    "reweighting": {"schedule": "none"},
    "optimizer": {"lr": 0.01, "weight_decay": 0.03},
    "training": {
        "batch": 64,
        "epoch_steps": 75,
        "augment": False,
        "stages": {"warm_up": 150, "weight_learning": 150, "learning_milestones": [225]},
    },
    "evaluation": {"galleries": [2], "select": "val/auc_v2f", "bound_pairs": 0},
    "workers": {"count": 1},
    "tracking": {"enabled": False},
}


class Quiet:
    """Reports to nobody and never stops a run."""

    def report(self, report: EpochReport) -> bool:  # noqa: ARG002
        """Go on."""
        return True


@dataclass(frozen=True)
class Outcome:
    """One figure of a variant, as fraction of Bayes: mean over seeds and both directions."""

    value: float
    interval: tuple[float, float]
    """95 %, over test identities in both roles; the ceiling is that of all of them."""
    seeds: tuple[float, ...]


def config_of(corpus: CorpusConfig, variant: str, seed: int) -> RunConfig:
    """Settings of one run."""
    changed = {name: {**BASE.get(name, {}), **part} for name, part in VARIANTS[variant].items()}
    return RunConfig.model_validate({**BASE, **changed, "corpus": corpus, "seed": seed})


def lists_of(test: Features) -> list[QueryList]:
    """Verification and 1:2 matching of the test split, both directions, strata U and G."""
    instances = Instances(
        voice_paths=test.voice_paths,
        voice_identity=test.voice_identity,
        face_paths=test.face_paths,
        face_identity=test.face_identity,
    )
    made = generate(
        instances, test.identities, split="test", n=(2,), strata=("U", "G"), seed=0
    ).lists
    return [queries for queries in made if queries.kind != "retrieval"]


def judge(variant: str, corpus: CorpusConfig, stores: Stores, out: Path) -> dict[str, Outcome]:
    """Train a variant with every seed in ``out``, and measure its best checkpoints on test."""
    assert corpus.features is not None
    test, truth = open_features(corpus.features, "test"), Truth.load(corpus.root)
    lists = lists_of(test)
    resolved = [resolve(queries, test.identities) for queries in lists]
    # The same identities in every list: replicates of two directions belong together.
    draws = [draw(each, BOOTSTRAP, 0) for each in resolved]
    values: dict[str, list[list[float]]] = {}
    redrawn: dict[str, list[np.ndarray]] = {}
    for seed in SEEDS:
        config = config_of(corpus, variant, seed)
        best = train(config, out / str(seed), Quiet(), device=CPU, stores=stores).best
        model, _ = load_model(best, CPU, on_features=True)
        embeddings = embed_split(model, test, config.evaluation, device="cpu")
        results = evaluate_lists(embeddings, lists, test.identities, bootstrap=0, truth=truth)
        for result, queries, drawn in zip(results, resolved, draws, strict=True):
            metric = "auc" if result.kind == "verify" else "accuracy"
            name = f"{'auc' if metric == 'auc' else '1:2'} {result.stratum}"
            values.setdefault(name, [[] for _ in SEEDS])[seed].append(
                result.fraction_of_bayes[metric]
            )
            found = replicates(measure(queries, embeddings, influence=True), drawn)[metric]
            chance = result.chance[metric]
            redrawn.setdefault(name, []).append(
                (found - chance) / (result.ceiling[metric] - chance)
            )
    outcomes = {}
    for name, found in values.items():
        seeds = tuple(float(np.mean(each)) for each in found)
        low, high = np.quantile(np.mean(redrawn[name], axis=0), (0.025, 0.975))
        outcomes[name] = Outcome(float(np.mean(seeds)), (float(low), float(high)), seeds)
    return outcomes


def recovered(
    train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, y: np.ndarray
) -> list[float]:
    """Held-out R² per column of ``y`` of a ridge regression, its strength by leave-one-out."""
    mean, deviation = train_x.mean(0), train_x.std(0) + 1e-9
    train_x, x = (train_x - mean) / deviation, (x - mean) / deviation
    centre = train_y.mean(0)
    left, sizes, right = np.linalg.svd(train_x, full_matrices=False)
    told = left.T @ (train_y - centre)
    errors = {}
    for strength in np.logspace(-1, 5, 13):
        shrink = sizes**2 / (sizes**2 + strength)
        rest = train_y - centre - left @ (shrink[:, None] * told)
        errors[strength] = np.mean((rest / (1 - (left**2) @ shrink)[:, None]) ** 2)
    strength = min(errors, key=lambda each: errors[each])
    weights = right.T @ ((sizes / (sizes**2 + strength))[:, None] * told)
    rest = y - centre - x @ weights
    return [float(v) for v in 1 - (rest**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)]


def probes(truth: Truth, encoder: str, features: Path) -> Iterator[Row]:
    """How well each latent of an identity can be read from what the encoders made."""
    splits = [open_features(features, name) for name in ("train", "test")]
    for what, latents, gender, names, ids in (
        ("voice", truth.voice_latents, truth.voice_gender, ("pitch", "tract", "rate"),
         truth.voice_ids),
        ("face", truth.face_latents, truth.face_gender, ("width", "age", "length"),
         truth.face_ids),
    ):  # fmt: skip
        place = {name: row for row, name in enumerate(ids)}
        files: list[np.ndarray] = []
        means: list[np.ndarray] = []
        for split in splits:
            rows = [place[getattr(each, f"{what}_id")] for each in split.identities]
            told = np.column_stack([latents[rows], gender[rows]])
            x = np.asarray(getattr(split, f"{what}_features"), np.float64)
            owner = getattr(split, f"{what}_identity")
            files += x, told[owner]
            means += np.stack([x[owner == row].mean(0) for row in range(len(told))]), told
        for level, data in (("file", files), ("identity", means)):
            for name, value in zip((*names, "gender"), recovered(*data), strict=True):
                yield {"what": f"{encoder}: R² of {what} {name} per {level}", "value": value,
                       "unit": "", "goal": "-"}  # fmt: skip


@contextmanager
def timed(rows: list[Row], what: str) -> Iterator[None]:
    """Rows of wall and of this process' time."""
    started, begun = time.perf_counter(), time.process_time()
    yield
    rows.append({"what": what, "value": time.perf_counter() - started, "unit": "s", "goal": "-"})
    spent = time.process_time() - begun
    rows.append({"what": f"{what}: processor time", "value": spent, "unit": "s", "goal": "-"})


def main(folder: Path) -> None:
    """Make or reuse everything in ``folder``, train, measure, record."""
    rows: list[Row] = []
    began = time.perf_counter()
    statistics, reduced = folder / "features", folder / "discriminants"
    reused = [path.name for path in (folder / "corpus", statistics, reduced) if path.exists()]
    with timed(rows, "synthesis" + (" (was there)" if "corpus" in reused else "")):
        root = synthesise(folder / "corpus", RECIPE).root
    corpus = CorpusConfig(root=root, store=folder / "store", features=reduced / FEATURES)
    with timed(rows, "features and discriminants"):
        extract(
            corpus.model_copy(update={"features": None}),
            VoiceConfig(encoder="statistics", frozen=True),
            FaceConfig(encoder="statistics", frozen=True),
            statistics,
        )
        if not reduced.exists():
            write_discriminants(statistics, reduced)
    truth = Truth.load(root)
    assert truth is not None, "a synthetic corpus has one"
    with timed(rows, "probes"):
        found = [*probes(truth, "statistics", statistics)]
        found += probes(truth, "discriminants", reduced / FEATURES)
    with timed(rows, f"training and evaluation of {len(VARIANTS) * len(SEEDS)} runs"):
        stores = Stores.open(config_of(corpus, "both", 0))
        for variant in VARIANTS:
            out = folder / "runs" / f"{time.time_ns()}"
            for name, outcome in judge(variant, corpus, stores, out).items():
                goal = GOALS.get(name, "-") if variant.startswith("both") else "-"
                found.append(
                    {"what": f"{variant}: {name}", "value": outcome.value, "unit": "of Bayes",
                     "goal": goal, "interval": outcome.interval, "seeds": outcome.seeds}
                )  # fmt: skip
    whole = (time.perf_counter() - began) / 60
    without = f" but {', '.join(reused)}, made before" if reused else ""
    goal = "-" if reused else "<= 60"
    rows.append({"what": f"all{without}", "value": whole, "unit": "min", "goal": goal})
    record("learn", [*found, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else home() / "learn")
