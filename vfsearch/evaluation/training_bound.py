"""Proposition 1 and Corollary 1 on a model in training: one pass over its training split."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vfsearch.config import EvaluationConfig
from vfsearch.evaluation.embed import Decoded, Device, Embedder, embed_split
from vfsearch.evaluation.epoch import first_instances
from vfsearch.loss.bound import BoundMeter

_ROWS = 4096
"""Pairs whose logits are held at once."""


class TrainingBound:
    """Measures the bound with one model, one omega and one s_hat, as the proposition wants.

    Every identity of the split takes part with its first ``evaluation.bound_pairs`` pairs: the
    same pairs every epoch, without dropout and augmentation, so that epochs can be compared.
    """

    def __init__(self, store: Decoded, config: EvaluationConfig) -> None:
        """Choose the pairs; ``config.bound_pairs`` 0 measures nothing, None takes every file."""
        self._store, self._config = store, config
        self._voices = first_instances(store.voice_identity, config.bound_pairs)
        self._faces = first_instances(store.face_identity, config.bound_pairs)
        self._pairs = pair_up(
            np.asarray(store.voice_identity)[self._voices],
            np.asarray(store.face_identity)[self._faces],
        )

    def __call__(
        self,
        model: Embedder,
        omega: Float[Tensor, "identities dim"],
        weights: Float[Tensor, "identities"],
        *,
        device: Device,
        rank: int = 0,
        world: int = 1,
    ) -> dict[str, float]:
        """``bound/...``, the same on every rank; every rank embeds its share.

        Raises:
            QueryError: an embedding that is not finite, on every rank alike.
        """
        if self._config.bound_pairs == 0:
            return {}
        embeddings = embed_split(
            model,
            self._store,
            self._config,
            device=device,
            rank=rank,
            world=world,
            voices=self._voices,
            faces=self._faces,
        )
        voices = torch.from_numpy(embeddings.matrix[: len(self._voices)])
        faces = torch.from_numpy(embeddings.matrix[len(self._voices) :])
        labels = torch.from_numpy(np.asarray(self._store.voice_identity)[self._voices])
        meter = BoundMeter(omega, weights)
        for start in range(0, len(self._pairs), _ROWS):
            voice, face = torch.from_numpy(self._pairs[start : start + _ROWS]).T
            meter.add(
                faces[face].to(omega.device),
                voices[voice].to(omega.device),
                labels[voice].to(omega.device),
            )
        bound = meter.measure()
        return {
            "bound/implicit": bound.loss,
            "bound/implicit_lower": bound.lower,
            "bound/gap": bound.gap,
            "bound/max_weight_norm": bound.max_weight_norm,
            "bound/mean_weight_norm": bound.mean_weight_norm,
        }


def pair_up(
    voice_identity: Int64[np.ndarray, " voices"], face_identity: Int64[np.ndarray, " faces"]
) -> Int64[np.ndarray, "pairs two"]:
    """Rows (voice, face) of one identity: the i-th with the i-th, the fewer ones repeated.

    So every voice and every face of an identity with both is in at least one pair.
    """
    pairs = []
    for identity in np.intersect1d(voice_identity, face_identity):
        voices = np.flatnonzero(voice_identity == identity)
        faces = np.flatnonzero(face_identity == identity)
        count = max(len(voices), len(faces))
        pairs.append(np.stack([np.resize(voices, count), np.resize(faces, count)], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
