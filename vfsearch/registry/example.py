"""A voice and a face small enough to stand in a model's folder as its example of input."""

import io

import cv2
import numpy as np
import soundfile

SECONDS = 0.5
RATE = 16_000
SIDE = 64


def example_files() -> dict[str, bytes]:
    """``{"voice": WAV, "face": JPG}``: a vowel-like tone and a shaded ellipse; no person's."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    harmonics = np.arange(1, 12)[:, None]
    tone = 0.2 * (np.sin(2 * np.pi * 120 * harmonics * time) / harmonics).sum(axis=0)
    sound = io.BytesIO()
    soundfile.write(sound, tone.astype(np.float32), RATE, format="WAV", subtype="PCM_16")
    picture = np.full((SIDE, SIDE, 3), 127, np.uint8)
    cv2.ellipse(picture, (32, 32), (18, 25), 0, 0, 360, (140, 160, 200), thickness=-1)
    done, coded = cv2.imencode(".jpg", picture)
    assert done  # a constant picture can always be coded
    return {"voice": sound.getvalue(), "face": bytes(coded.tobytes())}
