"""Log-mel features of a voice, computed on the training device."""

import torch
import torchaudio
from jaxtyping import Float, Int16
from torch import Tensor, nn

SAMPLE_RATE = 16_000
MEL_BANDS = 40


class LogMel(nn.Module):
    """int16 samples at 16 kHz to log-mel bands, each normalised over its own utterance.

    n_fft 512, window 400 (Hamming), hop 160, 40 mel bands, log(. + 1e-6), then per utterance and
    band zero mean and unit variance over time (METHOD.md, Encoders). Always computed in float32:
    the spectrum's range does not survive bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = torchaudio.transforms.Spectrogram(
            n_fft=512, win_length=400, hop_length=160, window_fn=torch.hamming_window, power=None
        )
        self.mel_scale = torchaudio.transforms.MelScale(
            n_mels=MEL_BANDS, sample_rate=SAMPLE_RATE, n_stft=257
        )

    def forward(self, voices: Int16[Tensor, "batch samples"]) -> Float[Tensor, "batch 40 frames"]:
        """Features; one frame per 10 ms, frames = samples // 160 + 1."""
        with torch.no_grad(), torch.autocast(voices.device.type, enabled=False):
            spectrum = torch.view_as_real(self.spectrogram(voices.to(torch.float32) / 32768.0))
            # |z|^2 without |z|: the complex modulus alone costs as much as the transform on CPU.
            power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
            bands = torch.log(self.mel_scale(power) + 1e-6)
            variance, mean = torch.var_mean(bands, dim=2, keepdim=True, correction=0)
            normalised: Tensor = (bands - mean) * torch.rsqrt(variance + 1e-5)
            return normalised
