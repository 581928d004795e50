"""Batches of (face, voice) pairs: one random pair per identity and pass, unique within a batch.

Everything random is a function of the seed and the step, so the state of a stream is one number
and the global sequence does not depend on the number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vfsearch.corpus.decoding import SAMPLE_RATE
from vfsearch.corpus.layout import Identity
from vfsearch.errors import UsageError


class Drawable(Protocol):
    """What batches are drawn from: a decoded split, or its features."""

    @property
    def name(self) -> str:
        """Of the split."""

    @property
    def identities(self) -> Sequence[Identity]:
        """In the order that labels refer to."""

    @property
    def face_identity(self) -> Int64[np.ndarray, " faces"]:
        """Identity of each face."""

    @property
    def voice_identity(self) -> Int64[np.ndarray, " voices"]:
        """Identity of each voice."""

    def read_faces(self, rows: Int64[np.ndarray, " batch"]) -> Shaped[np.ndarray, "batch ..."]:
        """Faces, copied."""

    def draw_voices(
        self,
        rows: Int64[np.ndarray, " batch"],
        where: Float[np.ndarray, " batch"],
        samples: int,
    ) -> Shaped[np.ndarray, "batch ..."]:
        """A window of each voice, from ``where`` in [0, 1) on, copied."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a global batch."""

    faces: Shaped[Tensor, "batch ..."]
    """RGB bytes, or features."""
    voices: Shaped[Tensor, "batch ..."]
    """Samples (int16), or features."""
    labels: Int64[Tensor, " batch"]
    """Row of the identity in the split."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one rank's share of a global batch is made of."""

    labels: Int64[np.ndarray, " batch"]
    """Row of each identity in the split."""
    faces: Int64[np.ndarray, " batch"]
    """Rows of the faces."""
    voices: Int64[np.ndarray, " batch"]
    """Rows of the voices."""
    where: Float[np.ndarray, " batch"]
    """Where in its voice each window lies, in [0, 1)."""
    samples: int
    """Length of the windows."""


class BatchStream:
    """Endless batches for one rank.

    A pass is a permutation of the identities; those left over at its end (fewer than a global
    batch) wait for the next pass. Rank r takes rows r N/W ... of the N of the global batch.
    """

    def __init__(
        self,
        store: Drawable,
        *,
        batch: int,
        seconds: tuple[float, float],
        seconds_step: float = 0.25,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Start at step 0.

        Args:
            store: Split to draw from.
            batch: Global batch N, a multiple of ``world``.
            seconds: Shortest and longest window; one length per global batch.
            seconds_step: Windows are multiples of this, so that compiled code meets few lengths.
            seed: Seed of all draws.
            rank: This worker.
            world: Number of workers.

        Raises:
            UsageError: fewer identities than N.
        """
        if batch > len(store.identities):
            raise UsageError(
                f"training.batch is {batch}, but the {store.name} split has only "
                f"{len(store.identities)} identities and each may stand once in a batch"
            )
        self._store = store
        self._batch, self._seed = batch, seed
        self._rows = slice(rank * batch // world, (rank + 1) * batch // world)
        low, high = (max(1, round(s / seconds_step)) for s in seconds)
        self._lengths = (low, high)
        self._step_samples = round(seconds_step * SAMPLE_RATE)
        self._voices = _Grouped.of(store.voice_identity, len(store.identities))
        self._faces = _Grouped.of(store.face_identity, len(store.identities))
        self.steps_per_pass = len(store.identities) // batch
        self._step = 0
        self._pass: tuple[int, Int64[np.ndarray, " identities"]] | None = None

    def state(self) -> dict[str, int]:
        """What ``restore`` needs."""
        return {"step": self._step}

    def restore(self, state: dict[str, int]) -> None:
        """Continue where ``state`` was taken."""
        self._step = state["step"]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        drawn = self.draw()
        return Batch(
            faces=torch.from_numpy(self._store.read_faces(drawn.faces)),
            voices=torch.from_numpy(
                self._store.draw_voices(drawn.voices, drawn.where, drawn.samples)
            ),
            labels=torch.from_numpy(drawn.labels),
        )

    def draw(self) -> Drawn:
        """Draw the next batch without reading it."""
        step, self._step = self._step, self._step + 1
        number, place = divmod(step, self.steps_per_pass)
        order = self._permutation(number)
        identities = order[place * self._batch : (place + 1) * self._batch]
        random = np.random.default_rng([self._seed, 1, step])
        length = int(random.integers(self._lengths[0], self._lengths[1] + 1)) * self._step_samples
        draws = random.random((3, self._batch))
        mine, share = identities[self._rows], draws[:, self._rows]
        return Drawn(
            labels=mine,
            faces=self._faces.pick(mine, share[0]),
            voices=self._voices.pick(mine, share[1]),
            where=share[2],
            samples=length,
        )

    def _permutation(self, number: int) -> Int64[np.ndarray, " identities"]:
        if self._pass is None or self._pass[0] != number:
            random = np.random.default_rng([self._seed, 0, number])
            self._pass = (number, random.permutation(len(self._store.identities)))
        return self._pass[1]


@dataclass(frozen=True)
class _Grouped:
    """Instances grouped by identity."""

    rows: Int64[np.ndarray, " instances"]
    start: Int64[np.ndarray, " identities"]
    count: Int64[np.ndarray, " identities"]

    @classmethod
    def of(cls, identity: Int64[np.ndarray, " instances"], identities: int) -> Self:
        count = np.bincount(identity, minlength=identities)
        start = np.concatenate([[0], np.cumsum(count)[:-1]])
        return cls(np.argsort(identity, kind="stable"), start, count)

    def pick(
        self, identities: Int64[np.ndarray, " batch"], uniform: np.ndarray
    ) -> Int64[np.ndarray, " batch"]:
        """One instance per identity, by a number in [0, 1)."""
        place = (uniform * self.count[identities]).astype(np.int64)
        rows: Int64[np.ndarray, " batch"] = self.rows[self.start[identities] + place]
        return rows
