"""Seed runs measured on the validation split, with the replicates that a race compares."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vfsearch.config import CorpusConfig, RunConfig
from vfsearch.corpus.features import Features, open_split
from vfsearch.corpus.store import Store
from vfsearch.errors import SweepError
from vfsearch.evaluation.bootstrap import draw, replicates
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.epoch import EpochEvaluator, first_instances, metric_keys
from vfsearch.evaluation.measure import Measured, measure, resolve
from vfsearch.search.definition import SweepConfig
from vfsearch.search.verdict import Finalist
from vfsearch.training.checkpoint import load_model, read_state

Folders = Mapping[int, Sequence[Path]]
"""Per trial, the checkpoint of each of its seeds."""


class Yardstick:
    """The query list of the sweep's first objective, on the validation split."""

    def __init__(self, config: SweepConfig) -> None:
        """Find the list.

        Raises:
            SweepError: the objective is no metric of the validation split.
        """
        self._base = config.base
        self._evaluation = config.base.evaluation
        self._stores: dict[CorpusConfig, Store | Features] = {}
        self._metric = config.objectives[0].metric
        evaluator = EpochEvaluator(self._store(self._base), self._evaluation)
        self.evaluation = evaluator.key
        """Identity of the evaluation, see `comparable`."""
        for queries in evaluator.lists:
            if self._metric in metric_keys(queries, "val"):
                self._resolved = resolve(queries, evaluator.store.identities)
                self._column = metric_keys(queries, "val").index(self._metric)
                return
        raise SweepError(
            f"{self._metric} cannot be raced: it is no metric of the validation split; these are: "
            f"{', '.join(evaluator.keys)}"
        )

    def measure(self, checkpoint: Path) -> Measured:
        """Embed the validation split with a checkpoint and score the list."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        on_features = read_state(checkpoint).features is not None
        model, run = load_model(checkpoint, device, on_features=on_features)
        # Files or features as this model takes them; the paths are the same.
        store = self._store(run)
        limit = self._evaluation.instances
        embeddings = embed_split(
            model,
            store,
            run.evaluation,
            device=device,
            voices=first_instances(store.voice_identity, limit),
            faces=first_instances(store.face_identity, limit),
        )
        return measure(self._resolved, embeddings, influence=True, device=device)

    def finalist(
        self, number: int, checkpoints: Sequence[Path], *, bootstrap: int, seed: int
    ) -> Finalist:
        """Measure every seed of a trial.

        Replicates are averaged, not query outcomes: so every metric has them, AUC and ranks too.
        """
        weights = draw(self._resolved, bootstrap, seed)
        values, redrawn = [], []
        for checkpoint in checkpoints:
            measured = self.measure(checkpoint)
            name, value = list(measured.metrics().items())[self._column]
            values.append(value)
            redrawn.append(replicates(measured, weights)[name])
        return Finalist(number=number, values=tuple(values), replicates=np.mean(redrawn, axis=0))

    def _store(self, run: RunConfig) -> Store | Features:
        taken = {"face_size": run.corpus.face_size, "features": run.corpus.features}
        corpus = self._base.corpus.model_copy(update=taken)
        if corpus not in self._stores:
            self._stores[corpus] = open_split(run.model_copy(update={"corpus": corpus}), "val")
        return self._stores[corpus]


def measure_finalists(
    yardstick: Yardstick,
    folders: Folders,
    *,
    bootstrap: int,
    seed: int,
    progress: Callable[[str], None],
) -> list[Finalist]:
    """Measure the seeds of every finalist under the same draws of identities."""
    out = []
    for number, checkpoints in folders.items():
        progress(f"measuring the seeds of trial {number}")
        out.append(yardstick.finalist(number, checkpoints, bootstrap=bootstrap, seed=seed))
    return out
