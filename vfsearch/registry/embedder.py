"""Embeddings of files that belong to no corpus: any sound, any picture, from their bytes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np
import soundfile
import torch
from jaxtyping import Float32, Int16, UInt8

from vfsearch.config import RunConfig
from vfsearch.corpus.decoding import SAMPLE_RATE, at_side
from vfsearch.errors import CorpusError
from vfsearch.model.alignment import AlignmentModel
from vfsearch.training.checkpoint import load_model


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file."""

    modality: Literal["voice", "face"]
    name: str
    """What messages call it."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class FileEmbedder:
    """A checkpoint that embeds single files exactly as evaluation embeds a corpus."""

    model: AlignmentModel
    config: RunConfig
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: torch.device | None = None) -> Self:
        """Load a checkpoint folder onto the device, by default a GPU if there is one.

        Raises:
            CheckpointError: it is no checkpoint, damaged, or not of a safe format.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, config = load_model(folder, device)
        model.eval()
        return cls(model=model, config=config, device=device)

    def embed(self, sources: Sequence[Source]) -> Float32[np.ndarray, "files dim"]:
        """Unit embeddings, in the order of the files.

        Raises:
            CorpusError: a file that cannot be decoded, by name.
        """
        window = round(self.config.evaluation.audio_seconds * SAMPLE_RATE)
        chunk = self.config.evaluation.batch
        out = np.zeros((len(sources), self.config.model.embedding_dim), np.float32)
        for modality in ("voice", "face"):
            rows = [row for row, source in enumerate(sources) if source.modality == modality]
            for start in range(0, len(rows), chunk):
                part = rows[start : start + chunk]
                if modality == "voice":
                    voices = [read_voice(sources[row], window) for row in part]
                    out[part] = self.embed_voices(np.stack(voices))
                else:
                    faces = [read_face(sources[row], self.side) for row in part]
                    out[part] = self.embed_faces(np.stack(faces))
        return out

    @property
    def side(self) -> int:
        """Side of the faces that the model takes, pixels."""
        return self.config.corpus.face_size

    def embed_voices(
        self, voices: Int16[np.ndarray, "batch samples"]
    ) -> Float32[np.ndarray, "batch dim"]:
        """Unit embeddings of decoded voices."""
        with torch.inference_mode():
            return _unit(self.model.embed_voices(torch.from_numpy(voices).to(self.device)))

    def embed_faces(
        self, faces: UInt8[np.ndarray, "batch side side 3"]
    ) -> Float32[np.ndarray, "batch dim"]:
        """Unit embeddings of decoded faces."""
        with torch.inference_mode():
            return _unit(self.model.embed_faces(torch.from_numpy(faces).to(self.device)))


def _unit(embedded: torch.Tensor) -> Float32[np.ndarray, "batch dim"]:
    wide = embedded.double()
    norms = wide.norm(dim=1, keepdim=True)
    return np.asarray((wide / norms.where(norms > 0, 1.0)).float().cpu().numpy(), np.float32)


def read_voice(source: Source, window: int) -> Int16[np.ndarray, " samples"]:
    """The first ``window`` samples at 16 kHz, mono, repeated if the sound is shorter.

    Raises:
        CorpusError: it is no sound.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(source.data)) as file:
            rate = int(file.samplerate)
            frames = -(-window * rate // SAMPLE_RATE)
            samples = file.read(frames, dtype="int16", always_2d=True)
    except (OSError, soundfile.SoundFileError):
        raise CorpusError(f"{source.name}: is no audio file that can be decoded") from None
    if not len(samples):
        raise CorpusError(f"{source.name}: holds no sound")
    mono = samples[:, 0]
    if samples.shape[1] > 1 or rate != SAMPLE_RATE:
        mono = _resampled(samples.astype(np.float32).mean(axis=1), rate)
    # np.resize repeats a short voice until the window is full, as evaluation does.
    return np.resize(mono[:window], window)


def _resampled(samples: Float32[np.ndarray, " samples"], rate: int) -> Int16[np.ndarray, " out"]:
    from torchaudio.functional import resample

    moved = resample(torch.from_numpy(samples), rate, SAMPLE_RATE).round()
    return np.asarray(moved.clamp(-32768, 32767).numpy(), np.int16)


def read_face(source: Source, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The picture in RGB at ``side`` pixels; it should show one cropped face.

    Raises:
        CorpusError: it is no picture.
    """
    coded = np.frombuffer(source.data, np.uint8)
    image = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB) if coded.size else None
    if image is None:
        raise CorpusError(f"{source.name}: is no picture that can be decoded")
    return at_side(image, side)
