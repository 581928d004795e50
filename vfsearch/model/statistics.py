"""Fixed statistics of voices and faces: encoders without anything learned in them.

What a listener or a viewer would measure: spectrum, pitch and rhythm of a voice; colours and
edges of a face, at low resolution. They say much about a synthetic identity and cost little.
"""

import math

import torch
import torchaudio
from jaxtyping import Float, Int16, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vfsearch.model.features import SAMPLE_RATE

BANDS, HOP, FFT = 64, 320, 1024
"""Mel bands, samples between frames, samples per frame (zero-padded from 640)."""
PITCHES = torch.logspace(math.log2(70), math.log2(340), 72, base=2).tolist()
"""Hz at which the mean autocorrelation is read."""
RHYTHMS = 32
"""Bins of the modulation spectrum, 0.5 Hz wide."""
GROUPS = 4
"""Groups of mel bands with a modulation spectrum each."""


class VoiceStatistics(nn.Module):
    """Mean and spread of log-mel bands, pitch, and the rhythm of energy and spectral change."""

    dim = 2 * BANDS + len(PITCHES) + 5 + RHYTHMS * (GROUPS + 1)

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = torchaudio.transforms.Spectrogram(
            n_fft=FFT, win_length=640, hop_length=HOP, power=2.0
        )
        self.mel_scale = torchaudio.transforms.MelScale(
            n_mels=BANDS, sample_rate=SAMPLE_RATE, n_stft=FFT // 2 + 1, f_min=60.0
        )

    @torch.no_grad()
    def forward(self, voices: Int16[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """Statistics of windows of 16 kHz samples."""
        power = self.spectrogram(voices.float() / 32768.0)
        mel = torch.log(self.mel_scale(power) + 1e-6)
        loud = torch.log(power.sum(1) + 1e-6)
        # Vowels are the loudest frames; they carry formants and pitch.
        voiced = loud > loud.quantile(0.5, dim=1, keepdim=True)
        voiced = (voiced | ~voiced.any(1, keepdim=True)).float()  # a level sound: every frame
        share = voiced / voiced.sum(1, keepdim=True)
        level = mel - mel.mean((1, 2), keepdim=True)
        mean = (level * share[:, None]).sum(2)
        spread = ((level - mean[..., None]).square() * share[:, None]).sum(2).sqrt()
        return torch.cat([mean, spread, *self._pitch(power, share), self._rhythm(mel)], 1)

    def _pitch(
        self, power: Float[Tensor, "batch bins frames"], share: Float[Tensor, "batch frames"]
    ) -> list[Tensor]:
        # The whitened spectrum's transform is an autocorrelation that formants disturb little.
        flat = power / (F.avg_pool1d(power.transpose(1, 2), 31, 1, 15).transpose(1, 2) + 1e-9)
        flat[:, 160:] = 0.0  # harmonics up to 2.5 kHz
        ac = torch.fft.irfft(flat.clamp_max(20.0).transpose(1, 2))[..., : FFT // 2]
        ac = ac / ac[..., :1].clamp_min(1e-9)
        lags = SAMPLE_RATE / torch.tensor(PITCHES, device=power.device)
        low = lags.floor().long()
        part = lags - low
        read = ac[..., low] * (1 - part) + ac[..., low + 1] * part
        mean = (read * share[..., None]).sum(1)
        # A soft maximum over pitches 2 % apart, per frame.
        peak = read.new_tensor(PITCHES).log2()
        weight = (read * 40).softmax(-1)
        best = (weight * peak).sum(-1)
        centre = (best * share).sum(1, keepdim=True)
        wide = ((best - centre).square() * share).sum(1, keepdim=True).sqrt()
        top = (mean * 60).softmax(-1)
        overall = (top * peak).sum(1, keepdim=True)
        middle = torch.stack([_weighted_quantile(best, share, q) for q in (0.25, 0.5)], 1)
        return [mean, centre, wide, overall, middle]

    def _rhythm(self, mel: Float[Tensor, "batch bands frames"]) -> Float[Tensor, "batch bins"]:
        groups = mel.reshape(len(mel), GROUPS, BANDS // GROUPS, -1).mean(2)
        change = (mel[..., 2:] - mel[..., :-2]).abs().mean(1, keepdim=True)
        tracks = torch.cat([groups[..., 1:-1], change], 1)
        tracks = tracks - tracks.mean(2, keepdim=True)
        window = torch.hann_window(tracks.shape[2], device=mel.device)
        modulation = torch.fft.rfft(tracks * window, n=1000).abs().square()[..., : RHYTHMS * 10]
        binned = modulation.reshape(*modulation.shape[:2], RHYTHMS, 10).mean(3)
        return torch.log(binned / binned.sum(2, keepdim=True) + 1e-6).flatten(1)


def _weighted_quantile(
    values: Float[Tensor, "batch frames"], share: Float[Tensor, "batch frames"], q: float
) -> Float[Tensor, "batch"]:
    ordered, order = values.sort(1)
    mass = share.gather(1, order).cumsum(1)
    return ordered.gather(1, (mass < q).sum(1, keepdim=True).clamp_max(values.shape[1] - 1))[:, 0]


SIDE, CELL, ORIENTATIONS = 64, 8, 8
COSINES = 12


class FaceStatistics(nn.Module):
    """Low cosine coefficients of the colours and histograms of edge directions.

    Both are averaged with those of the mirror image: what is asked for has no side.
    """

    dim = 3 * COSINES * COSINES + (SIDE // CELL) ** 2 * ORIENTATIONS

    @torch.no_grad()
    def forward(self, faces: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch dim"]:
        """Statistics of RGB faces."""
        pixels = faces.permute(0, 3, 1, 2).float() / 255.0
        if pixels.shape[-1] != SIDE:
            pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        return (self._half(pixels) + self._half(pixels.flip(3))) / 2

    def _half(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch dim"]:
        places = torch.arange(SIDE, device=pixels.device)
        orders = torch.arange(COSINES, device=pixels.device)
        basis = torch.cos(math.pi / SIDE * (places + 0.5) * orders[:, None]) / SIDE**0.5
        colours = basis @ pixels @ basis.T
        grey = torch.log(pixels.mean(1) + 0.05)
        dx = F.pad(grey[:, :, 2:] - grey[:, :, :-2], (1, 1))
        dy = F.pad(grey[:, 2:] - grey[:, :-2], (0, 0, 1, 1))
        size = (dx.square() + dy.square() + 1e-8).sqrt()
        turn = torch.remainder(torch.atan2(dy, dx), math.pi) / math.pi * ORIENTATIONS
        near = torch.arange(ORIENTATIONS, device=pixels.device)[None, :, None, None]
        gap = (turn[:, None] - near).abs()
        weight = (1 - torch.minimum(gap, ORIENTATIONS - gap)).clamp_min(0) * size[:, None]
        cells = F.avg_pool2d(weight, CELL)
        cells = (cells + 1e-4).sqrt()
        return torch.cat([colours.flatten(1), cells.flatten(1)], 1)
