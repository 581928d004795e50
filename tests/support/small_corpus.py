"""A corpus of noise and flat pictures in the released layout, quick to write and easy to damage."""

from pathlib import Path

import cv2
import numpy as np
import soundfile

from vfsearch.config import CorpusConfig
from vfsearch.corpus.layout import SPLITS, Identity, format_identities

SIDE = 40
SECONDS = (0.5, 0.9)


def small_corpus(
    root: Path,
    *,
    identities: int = 4,
    each: int = 3,
    store: Path | None = None,
    seconds: float | None = None,
) -> CorpusConfig:
    """Write the three splits, ``identities`` each; voices have different lengths or ``seconds``."""
    random = np.random.default_rng(0)
    row = 0
    for name in SPLITS:
        people = []
        for _ in range(identities):
            row += 1
            people.append(
                Identity(
                    voice_id=f"id{row:05d}",
                    face_id=f"Some_One_{row}",
                    gender="mf"[row % 2],
                    nationality="USA",
                )
            )
            for n in range(each):
                voice = root / "wav" / people[-1].voice_id / f"v{n % 2}" / f"{n:05d}.wav"
                face = root / "faces" / people[-1].face_id / f"{n:07d}.jpg"
                voice.parent.mkdir(parents=True, exist_ok=True)
                face.parent.mkdir(parents=True, exist_ok=True)
                samples = int((seconds or random.uniform(*SECONDS)) * 16_000)
                sound = random.integers(-9000, 9000, samples).astype(np.int16)
                soundfile.write(voice, sound, 16_000, subtype="PCM_16")
                picture = np.zeros((SIDE, SIDE, 3), np.uint8) + random.integers(0, 255, 3).astype(
                    np.uint8
                )
                assert cv2.imwrite(str(face), picture)
        text = format_identities(people, "test" if name == "test" else "dev")
        (root / f"vox1_{name}.csv").write_bytes(text.encode())
    return CorpusConfig(root=root, face_size=32, store=store)
