"""Decoding of one voice (soundfile) or one face (OpenCV); a reason in words instead of an error."""

from pathlib import Path

import cv2
import numpy as np
import soundfile
from jaxtyping import Int16, UInt8

SAMPLE_RATE = 16_000


def decode_voice(path: str) -> Int16[np.ndarray, " samples"] | str:
    """Samples of a voice, or why it cannot be used."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != SAMPLE_RATE:
                return f"has {file.samplerate} samples per second, {SAMPLE_RATE} are needed"
            if file.channels != 1:
                return f"has {file.channels} channels, one is needed"
            if file.frames == 0:
                return "holds no sound"
            frames, decoded = file.frames, file.read(dtype="int16")
    except (OSError, soundfile.SoundFileError):
        return _why(path)
    if len(decoded) != frames:
        return f"is cut short: {len(decoded)} of {frames} samples are there"
    samples: Int16[np.ndarray, " samples"] = decoded
    return samples


def _why(path: str) -> str:
    """Why libsndfile, which does not say, could not read a file."""
    try:
        with Path(path).open("rb") as opened:
            return "is no audio file that can be decoded" if opened.read(1) else "is empty"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def decode_face(path: str, side: int) -> UInt8[np.ndarray, "side side 3"] | str:
    """RGB of a face at ``side`` pixels, or why it cannot be used."""
    try:
        with open(path, "rb") as opened:  # noqa: PTH123 - a Path for each costs time
            content = opened.read()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not content:
        return "is empty"
    if content[-2:] != b"\xff\xd9":
        # OpenCV fills what is missing of a JPEG with grey and says nothing.
        return "is no whole JPEG file (its end is missing)"
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        return "is no image that can be decoded"
    return at_side(image, side)


def at_side(image: np.ndarray, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Bring a picture to ``side`` pixels; every face that a model sees came through here."""
    if image.shape[:2] != (side, side):
        # Up to a half, two by two pixels see everything, in a sixth of the time of an area mean.
        near = max(image.shape[:2]) <= 2 * side
        how = cv2.INTER_LINEAR if near else cv2.INTER_AREA
        image = cv2.resize(image, (side, side), interpolation=how)
    return np.ascontiguousarray(image, np.uint8)
