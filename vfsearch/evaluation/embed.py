"""Embedding a decoded split on every worker, to the same numbers for any number of workers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn

from vfsearch.config import EvaluationConfig
from vfsearch.corpus.strata import Person
from vfsearch.evaluation.embeddings import Embeddings

SAMPLE_RATE = 16_000
Device = torch.device | str


class Decoded(Protocol):
    """What evaluation reads of a split: a decoded store, or its features."""

    @property
    def split_hash(self) -> str:
        """Hash of identities and files."""

    @property
    def identities(self) -> Sequence[Person]:
        """In the order that the rows below refer to."""

    @property
    def face_identity(self) -> Int64[np.ndarray, " faces"]:
        """Identity of each face."""

    @property
    def face_paths(self) -> Sequence[str]:
        """Path of each face as in query lists."""

    @property
    def voice_identity(self) -> Int64[np.ndarray, " voices"]:
        """Identity of each voice."""

    @property
    def voice_paths(self) -> Sequence[str]:
        """Path of each voice as in query lists."""

    def read_faces(self, rows: Int64[np.ndarray, " chunk"]) -> Shaped[np.ndarray, "chunk ..."]:
        """Faces, copied."""

    def read_voices(
        self, rows: Int64[np.ndarray, " chunk"], samples: int
    ) -> Shaped[np.ndarray, "chunk ..."]:
        """The first samples of each voice, 16 kHz, repeated where a voice is shorter."""


class Embedder(Protocol):
    """Both encoders (``model.AlignmentModel`` has them)."""

    def embed_faces(self, faces: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """Embed decoded faces, or their features."""

    def embed_voices(self, voices: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """Embed voices of one length, or their features."""

    def modules(self) -> Iterator[nn.Module]:
        """All parts, as ``nn.Module`` has it."""


def embed_split(
    model: Embedder,
    store: Decoded,
    config: EvaluationConfig,
    *,
    device: Device,
    rank: int = 0,
    world: int = 1,
    voices: Int64[np.ndarray, " kept"] | None = None,
    faces: Int64[np.ndarray, " kept"] | None = None,
) -> Embeddings:
    """Embed a split's voices and faces; every rank gets all of them.

    The model runs in evaluation mode (dropout off, stored BatchNorm statistics) and is left in the
    mode it was in.

    Args:
        model: both encoders, on ``device``.
        store: the decoded split.
        config: window and chunk size.
        device: where the model is.
        rank: of this worker in the default process group.
        world: workers; 1 needs no process group.
        voices: rows to embed; None for all.
        faces: rows to embed; None for all.

    Raises:
        QueryError: an embedding that is not finite, on every rank alike.
    """
    voices = np.arange(len(store.voice_paths)) if voices is None else voices
    faces = np.arange(len(store.face_paths)) if faces is None else faces
    window = round(config.audio_seconds * SAMPLE_RATE)

    def read_voices(rows: Int64[np.ndarray, " chunk"]) -> Shaped[np.ndarray, "chunk ..."]:
        return store.read_voices(rows, window)

    size = config.batch
    with evaluating(model), torch.no_grad():
        matrix = np.concatenate(
            [
                embed(read_voices, model.embed_voices, voices, size, device, rank, world),
                embed(store.read_faces, model.embed_faces, faces, size, device, rank, world),
            ]
        )
    paths = [store.voice_paths[int(row)] for row in voices]
    paths += [store.face_paths[int(row)] for row in faces]
    return Embeddings(paths=paths, matrix=matrix, source="the model's embeddings")


def embed(
    read: Callable[[Int64[np.ndarray, " chunk"]], Shaped[np.ndarray, "chunk ..."]],
    encode: Callable[[Any], Float[Tensor, "chunk dim"]],
    rows: Int64[np.ndarray, " items"],
    chunk: int,
    device: Device,
    rank: int = 0,
    world: int = 1,
) -> Float32[np.ndarray, "items dim"]:
    """Embed ``rows`` in chunks of fixed composition, chunk c on rank c modulo ``world``.

    What goes through the encoder together does not depend on the number of workers, so neither do
    the results. Only one chunk of inputs is in memory at a time.
    """
    starts = range(0, len(rows), chunk)
    done: list[Float[Tensor, "chunk dim"]] = []
    for start in starts[rank::world]:
        batch = torch.from_numpy(read(rows[start : start + chunk])).to(device)
        done.append(encode(batch).float())
    if world == 1:
        return torch.cat(done).cpu().numpy() if done else np.empty((0, 1), np.float32)
    where = device if dist.get_backend() == "nccl" else "cpu"
    size = torch.tensor([done[0].shape[1] if done else 0], device=where)
    # The first chunk is rank 0's; a rank without chunks cannot know the dimension.
    dist.broadcast(size, 0)
    slots = -(-len(starts) // world)
    share = torch.zeros((slots * chunk, int(size)), device=where)
    for slot, part in enumerate(done):
        share[slot * chunk : slot * chunk + len(part)] = part
    shares = [torch.empty_like(share) for _ in range(world)]
    dist.all_gather(shares, share)
    # Slot s of rank r is chunk s * world + r; only the last real chunk can be short.
    whole = torch.stack(shares).view(world, slots, chunk, -1).transpose(0, 1).flatten(0, 2)
    return whole[: len(rows)].cpu().numpy()


@contextmanager
def evaluating(model: Embedder) -> Iterator[None]:
    """Evaluation mode inside, and afterwards every part in the mode it was in."""
    modes = [(part, part.training) for part in model.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
