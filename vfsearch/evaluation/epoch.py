"""Evaluation of a model in training: the same query lists every epoch, every worker embedding."""

import logging
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from jaxtyping import Float64, Int64

from vfsearch.config import EvaluationConfig
from vfsearch.corpus.queries import QueryList
from vfsearch.corpus.query_generation import Instances, generate
from vfsearch.evaluation.bootstrap import draw, intervals, replicates
from vfsearch.evaluation.embed import Decoded, Device, Embedder, embed_split
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.identity import evaluation_key
from vfsearch.evaluation.measure import Resolved, measure, resolve
from vfsearch.evaluation.names import INTERVAL, list_keys, match_key
from vfsearch.evaluation.query_ranks import rank_table

log = logging.getLogger(__name__)
REPLICATES = 400
"""Draws of identities for the interval of an epoch."""


class EpochEvaluator:
    """Evaluates models on one decoded split; built once, called each epoch on every rank."""

    def __init__(self, store: Decoded, config: EvaluationConfig, *, prefix: str = "val") -> None:
        """Generate the query lists of the split (the same on every rank, from ``config.seed``).

        Lists that the split is too small for are dropped; ``notes`` says which and why.

        Raises:
            QueryError: no list can be formed, or an identity lacks a modality.
        """
        self.store = store
        self.config = config
        self.prefix = prefix
        self._voices = first_instances(store.voice_identity, config.instances)
        self._faces = first_instances(store.face_identity, config.instances)
        made = generate(
            Instances(
                voice_paths=[store.voice_paths[row] for row in self._voices],
                voice_identity=np.asarray(store.voice_identity)[self._voices],
                face_paths=[store.face_paths[row] for row in self._faces],
                face_identity=np.asarray(store.face_identity)[self._faces],
            ),
            store.identities,
            split=prefix,
            n=config.galleries,
            strata=config.strata,
            seed=config.seed,
            impossible="drop",
        )
        self.lists: tuple[QueryList, ...] = made.lists
        self.notes: tuple[str, ...] = made.notes
        for note in made.notes:
            log.warning("%s: %s", prefix, note)
        self._resolved = [resolve(queries, store.identities) for queries in made.lists]
        self.keys: tuple[str, ...] = tuple(
            key for queries in self._resolved for key in metric_keys(queries.queries, prefix)
        )
        self._selected = self._find(config.select)
        self._weights: Float64[np.ndarray, "replicates ids"] | None = None
        self.embeddings: Embeddings | None = None
        """Of the last model, on rank 0."""

    @cached_property
    def key(self) -> str:
        """What metrics of other evaluators must share to be compared; see ``identity``."""
        return evaluation_key(self.store.split_hash, self.lists)

    def embed(
        self, model: Embedder, *, device: Device, rank: int = 0, world: int = 1
    ) -> Embeddings:
        """Embed what the lists name; see ``embed_split``."""
        return embed_split(
            model,
            self.store,
            self.config,
            device=device,
            rank=rank,
            world=world,
            voices=self._voices,
            faces=self._faces,
        )

    def rank_table(self, embeddings: Embeddings) -> pa.Table:
        """Per-query ranks of a model on these lists; see ``query_ranks.rank_table``."""
        return rank_table(self._resolved, embeddings)

    def __call__(
        self, model: Embedder, *, device: Device, rank: int = 0, world: int = 1
    ) -> dict[str, float]:
        """Metrics of the model under ``keys``, the same on every rank.

        With them comes the interval of ``config.select`` (``names.INTERVAL``), if it is one.
        Every rank embeds its share; rank 0 measures and sends the numbers.

        Raises:
            QueryError: an embedding that is not finite, on every rank alike.
        """
        embeddings = self.embed(model, device=device, rank=rank, world=world)
        names = (*self.keys, *(INTERVAL if self._selected is not None else ()))
        values = torch.zeros(len(names), dtype=torch.float64)
        if rank == 0:
            self.embeddings = embeddings
            numbers: list[float] = []
            bounds: tuple[float, ...] = ()
            for place, resolved in enumerate(self._resolved):
                chosen = self._selected is not None and self._selected[0] == place
                measured = measure(resolved, embeddings, influence=chosen, device=device)
                numbers += measured.metrics().values()
                if self._selected is not None and chosen:
                    drawn = intervals(replicates(measured, self._draws(resolved)))
                    bounds = list(drawn.values())[self._selected[1]]
            values = torch.tensor([*numbers, *bounds], dtype=torch.float64)
        if world > 1:
            values = values.to(device) if dist.get_backend() == "nccl" else values
            dist.broadcast(values, 0)
        return dict(zip(names, values.tolist(), strict=True))

    def _find(self, metric: str) -> tuple[int, int] | None:
        """Which list has this metric, and which of its metrics it is."""
        for place, resolved in enumerate(self._resolved):
            names = metric_keys(resolved.queries, self.prefix)
            if metric in names:
                return place, names.index(metric)
        return None

    def _draws(self, resolved: Resolved) -> Float64[np.ndarray, "replicates ids"]:
        """The same draws of identities in every epoch, made when first needed."""
        if self._weights is None:
            self._weights = draw(resolved, REPLICATES, self.config.seed)
        return self._weights


def metric_keys(queries: QueryList, prefix: str) -> list[str]:
    """Names of a list's metrics in a tracked run, like ``val/match_v2f_1to2_G``."""
    if queries.kind == "match":
        return [match_key(prefix, queries.direction, queries.gallery, queries.stratum)]
    return list_keys(queries.kind, prefix, queries.direction, queries.stratum)


def first_instances(
    identity: Int64[np.ndarray, " items"], limit: int | None
) -> Int64[np.ndarray, " kept"]:
    """Rows of the first ``limit`` items of each identity, in order; all of them without a limit."""
    identity = np.asarray(identity)
    if limit is None:
        return np.arange(len(identity))
    order = np.argsort(identity, kind="stable")
    ranked = identity[order]
    place = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
    return np.sort(order[place < limit])
