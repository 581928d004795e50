"""A source-filter voice: what an identity sounds like, and one utterance of it.

Glottal pulses and aspiration are shaped by five moving formants (Fant's source-filter theory);
the vowels are the means for men of Hillenbrand et al. (1995). Latents, each strongly audible:
pitch within the gender, vocal-tract length, speaking rate. All else is nuisance.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16

from vfsearch.corpus.decoding import SAMPLE_RATE

HOP, WINDOW, BINS = 160, 640, 1024
LATENTS = ("log pitch", "log vocal-tract shortness", "log speaking rate")
_VOWELS = np.array(
    [
        [342, 2322, 3000], [427, 2034, 2684], [476, 2089, 2691], [580, 1799, 2605],
        [588, 1952, 2601], [768, 1333, 2522], [652, 997, 2538], [497, 910, 2459],
        [469, 1122, 2434], [378, 997, 2343], [623, 1200, 2550], [474, 1379, 1710],
    ],
    float,
)  # fmt: skip
_SONORANT = np.array([280.0, 1100.0, 2300.0])
_BANDWIDTHS = np.array([60, 90, 130, 200, 260.0])


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One identity's voice."""

    pitch: float
    """Median fundamental, Hz."""
    shortness: float
    """Factor on all formants; 1 is a man's vocal tract."""
    rate: float
    """Syllables per second."""
    breath: float
    tilt: float
    """Spectral tilt, dB per octave."""
    jitter: float
    span: float
    """Pitch movement, semitones."""
    formants: Float[np.ndarray, " 5"]
    """Relative deviation of each formant."""
    bandwidth: float


def speaker(latents: Float[np.ndarray, " 3"], female: bool, random: np.random.Generator) -> Speaker:
    """The voice of an identity with these latents; the rest is drawn."""
    pitch, shortness, rate = latents
    return Speaker(
        pitch=(205.0 if female else 118.0) * float(np.exp(0.12 * pitch)),
        shortness=(1.14 if female else 1.0) * float(np.exp(0.055 * shortness)),
        rate=4.6 * float(np.exp(0.20 * rate)),
        breath=float(np.exp(random.normal(-2.9, 0.4))),
        tilt=float(random.normal(-12, 1.5)),
        jitter=float(np.exp(random.normal(-4.5, 0.3))),
        span=float(random.uniform(1.0, 3.0)),
        formants=random.normal(0, 0.012, 5),
        bandwidth=float(np.exp(random.normal(0, 0.12))),
    )


def utterance(
    who: Speaker, seconds: float, random: np.random.Generator
) -> Int16[np.ndarray, " samples"]:
    """One recording: another text, another melody, another room level and noise floor."""
    frames = int(seconds * SAMPLE_RATE / HOP) + 1
    formants, voicing, frication = _articulation(who, frames, seconds, random)
    pulses = _pulses(who, frames, seconds, random)
    spectrum = _filtered(who, formants, voicing, frication, pulses, random)
    sound = _overlap_add(spectrum, int(seconds * SAMPLE_RATE))
    sound *= random.uniform(0.35, 0.8) / np.abs(sound).max()
    sound += random.normal(0, 10 ** random.uniform(-3.6, -2.8), len(sound))
    samples: Int16[np.ndarray, " samples"]
    samples = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
    return samples


def _articulation(
    who: Speaker, frames: int, seconds: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Formant tracks [frames, 5] in Hz, voicing and frication amplitudes [frames]."""
    count = int(seconds * who.rate * 2)  # consonant, vowel, consonant, ...
    lengths = np.abs(random.normal(1, 0.25, count)) + 0.2
    ends = np.cumsum(lengths)
    segment = np.searchsorted(ends / ends[-1] * frames, np.arange(frames) + 0.5)
    segment = np.clip(segment, 0, count - 1)
    vowel = np.arange(count) % 2 == 1
    kind = random.integers(0, 3, count)  # 0 fricative, 1 stop, 2 sonorant
    targets = _VOWELS[random.integers(0, len(_VOWELS), count)]
    targets[~vowel & (kind == 2)] = _SONORANT
    kernel = np.hanning(9) / np.hanning(9).sum()
    low = np.stack(
        [np.convolve(np.pad(targets[segment, j], 4, "edge"), kernel, "valid") for j in range(3)],
        axis=1,
    )
    high = np.tile([3400.0, 4400.0], (frames, 1))
    formants = np.concatenate([low, high], axis=1) * who.shortness * (1 + who.formants)
    sonorant = ~vowel & (kind == 2)
    voicing = np.where(vowel[segment], 1.0, np.where(sonorant[segment], 0.35, 0.0))
    voicing = np.convolve(voicing, np.hanning(5) / 2, "same")
    frication = np.select([~vowel & (kind == 0), ~vowel & (kind == 1)], [0.25, 0.08], 0.0)
    return formants, voicing, frication[segment]


def _pulses(
    who: Speaker, frames: int, seconds: float, random: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """Glottal pulses, one per period, with a sentence melody and jitter."""
    time = np.arange(frames) * HOP / SAMPLE_RATE
    wander = np.convolve(random.normal(0, 1, frames), np.hanning(25) / 4, "same")
    melody = 0.6 * np.sin(2 * np.pi * time / 1.7 + random.uniform(0, 6)) + 0.4 * wander
    semitones = who.span * melody - 1.5 * (time / seconds - 0.5)
    samples = frames * HOP
    pitch = np.interp(np.arange(samples), np.arange(frames) * HOP, 2 ** (semitones / 12))
    shaken = np.repeat(random.normal(0, 1, samples // 80 + 1), 80)[:samples]
    pitch *= who.pitch * (1 + who.jitter * shaken)
    at = np.flatnonzero(np.diff(np.floor(np.cumsum(pitch / SAMPLE_RATE))) > 0)
    out = np.zeros(samples)
    out[at] = np.sqrt(SAMPLE_RATE / pitch[at]) * (1 + 0.04 * random.normal(0, 1, len(at)))
    return out


def _filtered(
    who: Speaker,
    formants: np.ndarray,
    voicing: np.ndarray,
    frication: np.ndarray,
    pulses: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Spectrum [frames, bins] of the filtered sources."""
    hertz = np.fft.rfftfreq(BINS, 1 / SAMPLE_RATE)
    gain = np.ones((len(formants), len(hertz)))
    for j, width in enumerate(_BANDWIDTHS * who.bandwidth):
        centre = formants[:, j : j + 1] ** 2
        gain *= centre / np.sqrt((centre - hertz**2) ** 2 + (width * hertz) ** 2 + 1)
    tilt = 10 ** (who.tilt * np.log2(np.maximum(hertz, 100) / 100) * 0.5 / 20)
    hiss = np.exp(-0.5 * ((hertz - 5000 * who.shortness) / 1500) ** 2) * 0.7 + 0.05
    source = np.fft.rfft(_frames(pulses, len(formants)), BINS)
    noise = np.fft.rfft(_frames(random.normal(0, 1, len(pulses)), len(formants)), BINS)
    voiced = voicing[:, None] * (source + who.breath * 6 * noise * (hertz / 8000))
    out: np.ndarray = gain * tilt * voiced + frication[:, None] * hiss * noise * 1.2
    return out


def _frames(samples: np.ndarray, frames: int) -> np.ndarray:
    padded = np.pad(samples, (WINDOW // 2, WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    shaped: np.ndarray = windows * np.sqrt(np.hanning(WINDOW))
    return shaped


def _overlap_add(spectrum: np.ndarray, samples: int) -> np.ndarray:
    frames = np.fft.irfft(spectrum, BINS)[:, :WINDOW] * np.sqrt(np.hanning(WINDOW))
    out = np.zeros(len(frames) * HOP + WINDOW * 2)
    for part in range(WINDOW // HOP):  # a window is a whole number of hops: no scatter is needed
        piece = frames[:, part * HOP : (part + 1) * HOP].ravel()
        out[part * HOP : part * HOP + len(piece)] += piece
    whole: np.ndarray = out[WINDOW // 2 : WINDOW // 2 + samples]
    return whole
