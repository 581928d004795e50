"""A decoded split and a model, small enough for worker processes that import only these."""

import numpy as np
import torch
from torch import nn

from vfsearch.corpus.layout import Identity


class TinySplit:
    """Voices of unequal length, some shorter than the window, and faces of 8 x 8 pixels."""

    def __init__(self, identities: int, voices: int = 3, faces: int = 4) -> None:
        self.identities = [
            Identity(voice_id=f"id{i}", face_id=f"F{i}", gender="mf"[i % 2], nationality="a")
            for i in range(identities)
        ]
        random = np.random.default_rng(0)
        self.voice_identity = np.repeat(np.arange(identities), voices)
        self.voice_paths = [f"id{i}/v/{k}.wav" for i in range(identities) for k in range(voices)]
        self.face_identity = np.repeat(np.arange(identities), faces)
        self.face_paths = [f"F{i}/{k}.jpg" for i in range(identities) for k in range(faces)]
        self.faces = random.integers(0, 256, (len(self.face_paths), 8, 8, 3), dtype=np.uint8)
        self._voices = [
            random.integers(-9999, 9999, random.integers(1000, 9000)).astype(np.int16)
            for _ in self.voice_paths
        ]

    def voice(self, row: int, /) -> np.ndarray:
        return self._voices[row]

    def read_faces(self, rows: np.ndarray) -> np.ndarray:
        return self.faces[rows]

    def read_voices(self, rows: np.ndarray, samples: int) -> np.ndarray:
        return np.stack([np.resize(self.voice(int(row))[:samples], samples) for row in rows])


class TinyModel(nn.Module):
    """Convolutions, batch normalisation and dropout, as the real ones have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.face = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.voice = nn.Sequential(nn.Conv1d(1, 6, 400, 160), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)

    def embed_faces(self, faces: torch.Tensor) -> torch.Tensor:
        image = faces.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.drop(self.head(self.face(image).unflatten(1, (6, -1)).mean(-1)))

    def embed_voices(self, voices: torch.Tensor) -> torch.Tensor:
        return self.drop(self.head(self.voice(voices[:, None].float() / 32768).mean(-1)))
