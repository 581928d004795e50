"""A few tones and coloured pictures in the corpus' layout, with embeddings that find them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import soundfile

from vfsearch.evaluation.gallery import Side


@dataclass(frozen=True)
class Corpus:
    voices: Side
    faces: Side
    names: dict[str, str]


def tiny_corpus(root: Path, owner: str = "person ", identities: int = 6, each: int = 2) -> Corpus:
    rng = np.random.default_rng(0)
    voices: dict[str, np.ndarray] = {}
    faces: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for number in range(identities):
        voice_id, face_id = f"id{number:05d}", f"Some_One_{number}"
        names[voice_id] = names[face_id] = f"{owner}{number}"
        centre = rng.normal(size=8)
        for take in range(each):
            voice, face = f"{voice_id}/clip/{take:05d}.wav", f"{face_id}/{take:05d}.jpg"
            time = np.arange(16_000 * 2) / 16_000
            tone = 0.4 * np.sin(2 * np.pi * (200 + 40 * number) * time) * np.sin(3 * time) ** 2
            for path in (root / "wav" / voice, root / "faces" / face):
                path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "wav" / voice, tone.astype(np.float32), 16_000)
            picture = rng.integers(0, 255, 3) * np.ones((160, 160, 1))
            cv2.imwrite(str(root / "faces" / face), picture.astype(np.uint8))
            voices[voice] = centre + rng.normal(size=8)
            faces[face] = centre + rng.normal(size=8)
    return Corpus(
        voices=Side(
            paths=list(voices),
            matrix=np.array(list(voices.values()), np.float32),
            root=root / "wav",
        ),
        faces=Side(
            paths=list(faces),
            matrix=np.array(list(faces.values()), np.float32),
            root=root / "faces",
        ),
        names=names,
    )
