"""The encoders are the paper's: parameter counts, shapes, features, normalisation inside."""

import numpy as np
import pytest
import torch
from torch import nn

from vfsearch.config import FaceConfig, ModelConfig, VoiceConfig
from vfsearch.model.alignment import Dropout, build_model
from vfsearch.model.face import build_face_encoder
from vfsearch.model.features import LogMel
from vfsearch.model.voice import build_voice_encoder

SMALL = ModelConfig(face=FaceConfig(encoder="small"), voice=VoiceConfig(encoder="small"))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def faces(batch: int, side: int = 112) -> torch.Tensor:
    return torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)


def voices(batch: int, seconds: float = 2.5) -> torch.Tensor:
    return torch.randint(-9000, 9000, (batch, int(16_000 * seconds)), dtype=torch.int16)


@pytest.mark.parametrize(("name", "parameters"), [("ir50", 43_574_976), ("ir_se50", 43_797_696)])
def test_face_encoder_has_the_published_size(name: str, parameters: int) -> None:
    encoder = build_face_encoder(name)
    assert count(encoder) == parameters
    assert round(parameters / 1e6, 2) in (43.57, 43.80)
    with torch.no_grad():
        assert encoder.eval()(faces(1)).shape == (1, 512)


def test_voice_encoder_has_the_published_size() -> None:
    encoder = build_voice_encoder("thin_resnet34")
    assert count(encoder) == 1_437_078
    assert sum(len(getattr(encoder, f"layer{n}")) for n in range(1, 5)) == 3 + 4 + 6 + 3
    with torch.no_grad():
        assert encoder.eval()(voices(2)).shape == (2, 512)


def test_head_sizes_and_classifier() -> None:
    model = build_model(SMALL, 7)
    assert count(model.face_head) == 2 * 512 + 512 * 128
    assert [type(layer) for layer in model.face_head] == [
        nn.BatchNorm1d, nn.ReLU, nn.Linear, Dropout,
    ]  # fmt: skip
    assert model.classifier.bias is None
    assert model.classifier.weight.shape == (7, 128)
    x, v = model(faces(3), voices(3))
    assert x.shape == v.shape == (3, 128)


@pytest.mark.parametrize("side", [56, 64, 112, 160])
def test_small_face_encoder_takes_any_stored_size(side: int) -> None:
    assert build_face_encoder("small")(faces(2, side)).shape == (2, 512)


def test_log_mel_is_the_definition() -> None:
    samples = (voices(2, 1.0)).numpy()
    got = LogMel()(torch.from_numpy(samples)).numpy()
    assert got.shape == (2, 40, 101)
    window = np.zeros(512)
    n = np.arange(400)
    window[56:456] = 0.54 - 0.46 * np.cos(2 * np.pi * n / 400)  # periodic Hamming, centred
    hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)
    bins = np.linspace(0, 8000, 257)
    up = (bins[:, None] - hz[None, :-2]) / (hz[1:-1] - hz[:-2])
    down = (hz[None, 2:] - bins[:, None]) / (hz[2:] - hz[1:-1])
    bank = np.clip(np.minimum(up, down), 0, None)
    padded = np.pad(samples / 32768.0, ((0, 0), (256, 256)), mode="reflect")
    frames = np.stack([padded[:, t * 160 : t * 160 + 512] for t in range(101)], axis=1)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    bands = np.log(power @ bank + 1e-6).transpose(0, 2, 1)
    mean, std = bands.mean(2, keepdims=True), bands.std(2, keepdims=True)
    np.testing.assert_allclose(got, (bands - mean) / np.sqrt(std**2 + 1e-5), atol=2e-3)


def test_features_do_not_depend_on_loudness_or_neighbours() -> None:
    mel = LogMel()
    one = voices(1, 1.0) // 4
    alone = mel(one)
    assert torch.allclose(mel(one * 2), alone, atol=1e-2)
    assert torch.allclose(mel(torch.cat([one, voices(1, 1.0)]))[:1], alone, atol=1e-5)


def test_silence_is_finite() -> None:
    assert LogMel()(torch.zeros(1, 16_000, dtype=torch.int16)).isfinite().all()


def test_frozen_encoder_does_not_move() -> None:
    config = SMALL.model_copy(update={"face": FaceConfig(encoder="small", frozen=True)})
    model = build_model(config, 4).train()
    before = {name: value.clone() for name, value in model.face.state_dict().items()}
    x, v = model(faces(4), voices(4))
    (x.square().sum() + v.square().sum()).backward()
    assert all(p.grad is None for p in model.face.parameters())
    assert all(p.grad is not None for p in model.face_head.parameters())
    assert all(torch.equal(before[n], value) for n, value in model.face.state_dict().items())


def test_bf16_forward_gives_float32_embeddings() -> None:
    model = build_model(SMALL, 4).eval()
    with torch.autocast("cpu", torch.bfloat16):
        x, v = model(faces(4), voices(4))
    assert x.dtype == v.dtype == torch.float32
