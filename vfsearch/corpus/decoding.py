"""Decoding of one voice (soundfile) or one face (OpenCV); a reason in words instead of an error."""

from pathlib import Path

import cv2
import numpy as np
import soundfile
from jaxtyping import Int16, UInt8

SAMPLE_RATE = 16_000


def voice_frames(path: Path) -> int | str:
    """Samples of a voice, from its header, or why it cannot be used."""
    try:
        if path.stat().st_size == 0:
            return "is empty"
        info = soundfile.info(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except soundfile.SoundFileError:
        return "is no audio file that can be decoded"
    if info.samplerate != SAMPLE_RATE:
        return f"has {info.samplerate} samples per second, {SAMPLE_RATE} are needed"
    if info.channels != 1:
        return f"has {info.channels} channels, one is needed"
    if info.frames == 0:
        return "holds no sound"
    return int(info.frames)


def decode_voice(path: Path, out: Int16[np.ndarray, " samples"]) -> str | None:
    """Decode into ``out``; None, or why it cannot be used."""
    try:
        decoded = soundfile.read(path, dtype="int16")[0]
    except (OSError, soundfile.SoundFileError):
        return "is no audio file that can be decoded"
    if len(decoded) != len(out):
        return f"is cut short: {len(decoded)} of {len(out)} samples are there"
    out[:] = decoded
    return None


def decode_face(path: Path, out: UInt8[np.ndarray, "side side 3"]) -> str | None:
    """Decode to RGB at the side of ``out``, pixels; None, or why it cannot be used."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if data.size == 0:
        return "is empty"
    if data[-2:].tobytes() != b"\xff\xd9":
        # OpenCV fills what is missing of a JPEG with grey and says nothing.
        return "is no whole JPEG file (its end is missing)"
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if image is None:
        return "is no image that can be decoded"
    side = out.shape[0]
    if image.shape[:2] != (side, side):
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    out[:] = image
    return None
