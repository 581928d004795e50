"""``retrieval_result.mp4``: each probe voice is heard while its nearest faces show."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vfsearch.errors import UsageError
from vfsearch.evaluation.frames import HEIGHT, WIDTH, heard, still
from vfsearch.evaluation.gallery import SECONDS, Gallery
from vfsearch.evaluation.media import audio_frame, read_voice

FRAMES_PER_SECOND = 12
SOUND_RATE = 48_000
"""Hz; the rate that every player and browser takes for AAC."""
PAUSE = 0.75
"""Seconds of silence after each voice."""
NAME = "retrieval_result.mp4"


def write_video(gallery: Gallery, out: Path, *, title: str) -> Path:
    """Write the film of the voice → face half of a gallery (at most ten faces per probe).

    H.264 (yuv420p) and AAC with the index first, which browsers play while loading.

    Returns:
        Path of the film in the folder ``out``.

    Raises:
        CorpusError: a voice or face cannot be read.
        UsageError: the folder cannot be written.
    """
    target = out / NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".film.") as folder:
            half = Path(folder) / NAME
            _encode(gallery, half, title)
            half.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def _encode(gallery: Gallery, path: Path, title: str) -> None:
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        film = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        film.options = {"preset": "veryfast", "crf": "22", "tune": "stillimage", "threads": "2"}
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        sound.bit_rate = 96_000
        shown = 0
        for number, found in enumerate(gallery.v2f, start=1):
            voice, rate = read_voice(gallery.voices / found.path, SECONDS)
            picture = still(found, number, len(gallery.v2f), title, gallery.faces)
            length = len(voice) / rate
            count = round((length + PAUSE) * FRAMES_PER_SECOND)
            for step in range(count):
                share = min(step / FRAMES_PER_SECOND / length, 1.0)
                frame = av.VideoFrame.from_ndarray(heard(picture, voice, share), format="rgb24")
                frame.pts = shown + step
                frame.time_base = Fraction(1, FRAMES_PER_SECOND)
                container.mux(film.encode(frame))
            # The sound of a probe is as long as its frames, so the two never drift apart.
            padded = np.zeros(round(count / FRAMES_PER_SECOND * rate), np.float32)
            padded[: len(voice)] = voice[: len(padded)]
            start = round(shown / FRAMES_PER_SECOND * SOUND_RATE)
            _sound(container, sound, padded, rate, start)
            shown += count
        container.mux(film.encode(None))
        container.mux(sound.encode(None))


def _sound(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    voice: np.ndarray,
    rate: int,
    start: int,
) -> None:
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_RATE)
    position = start
    for frame in [*resampler.resample(audio_frame(voice, rate, 0)), *resampler.resample(None)]:
        frame.pts = position
        frame.time_base = Fraction(1, SOUND_RATE)
        position += frame.samples
        container.mux(stream.encode(frame))
