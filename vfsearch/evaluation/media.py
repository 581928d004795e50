"""Faces and voices as the gallery shows them: small, playable, from the files of the corpus."""

from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
from jaxtyping import Float, UInt8

from vfsearch.errors import CorpusError

Samples = Float[np.ndarray, "samples"]
Image = UInt8[np.ndarray, "height width 3"]

VOICE_BITS_PER_SECOND = 48_000
"""AAC of a 16 kHz voice: transparent enough to judge a speaker, 6 kB per second."""


def read_face(path: Path, side: int) -> Image:
    """Read a picture as RGB, scaled so that its longer side is at most ``side`` pixels.

    Raises:
        CorpusError: the file is missing or is no picture.
    """
    try:
        coded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
    image = cv2.imdecode(coded, cv2.IMREAD_COLOR) if coded.size else None
    if image is None:
        raise CorpusError(f"{path}: is not a picture that can be decoded")
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, ::-1])


def face_jpeg(path: Path, side: int) -> bytes:
    """Read a picture and code it as a JPEG of at most ``side`` pixels, without its metadata."""
    image = read_face(path, side)[:, :, ::-1]
    done, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise CorpusError(f"{path}: cannot be coded as JPEG")
    return bytes(coded.tobytes())


def read_voice(path: Path, seconds: float) -> tuple[Samples, int]:
    """Read the first ``seconds`` of an utterance as mono in [-1, 1].

    Returns:
        Samples and their rate in Hz.

    Raises:
        CorpusError: the file is missing, empty or no sound.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            sound = file.read(round(seconds * rate), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise CorpusError(f"{path}: cannot be read as sound ({error})") from None
    if not len(sound):
        raise CorpusError(f"{path}: holds no sound")
    return np.ascontiguousarray(sound.mean(axis=1)), rate


def encode_voice(sound: Samples, rate: int) -> bytes:
    """AAC in MP4, which every current browser plays; bit-exact for the same samples."""
    target = BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(target, "w", format="mp4", options=options) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = VOICE_BITS_PER_SECOND
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for packet in stream.encode(audio_frame(sound, rate, 0)):
            container.mux(packet)
        container.mux(stream.encode(None))
    return target.getvalue()


def audio_frame(sound: Samples, rate: int, start: int) -> av.AudioFrame:
    """One PyAV frame of mono samples that begins at sample ``start``."""
    frame = av.AudioFrame.from_ndarray(
        np.clip(sound, -1, 1).astype(np.float32)[None], format="fltp", layout="mono"
    )
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = start
    return frame


def loudness(sound: Samples, bars: int) -> Float[np.ndarray, "bars"]:
    """Shape of an utterance for the eye: peak per bar in [0, 1], the loudest being 1."""
    edges = np.linspace(0, len(sound), bars + 1).astype(int)
    peaks = np.array([np.abs(sound[a : max(b, a + 1)]).max() for a, b in pairwise(edges)])
    return np.asarray(peaks / max(float(peaks.max()), 1e-9), np.float64)
