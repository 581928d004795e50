"""Statistics and their discriminants: what they measure, and one way to compute them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_corpus import small_corpus

from vfsearch.config import FaceConfig, VoiceConfig
from vfsearch.corpus.features import open_features
from vfsearch.errors import UsageError
from vfsearch.evaluation.discriminants import FEATURES, write_discriminants
from vfsearch.evaluation.extract import extract
from vfsearch.model.discriminant import DISCRIMINANTS, fit_discriminants
from vfsearch.model.statistics import BANDS, PITCHES, FaceStatistics, VoiceStatistics


def pulses(hertz: float, seconds: float = 1.0) -> np.ndarray:
    samples = np.zeros(int(seconds * 16_000), np.int16)
    samples[(np.arange(int(hertz * seconds)) * 16_000 / hertz).astype(int)] = 12_000
    return samples


@pytest.mark.parametrize("hertz", [95.0, 130.0, 180.0, 250.0])
def test_pitch_is_heard_within_a_semitone(hertz: float) -> None:
    out = VoiceStatistics()(torch.from_numpy(pulses(hertz))[None])
    heard = float(out[0, 2 * BANDS + len(PITCHES)])
    assert abs(heard - np.log2(hertz)) < 1 / 12


def test_a_mirrored_face_has_the_same_statistics() -> None:
    faces = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8))
    encoder = FaceStatistics()
    torch.testing.assert_close(encoder(faces), encoder(faces.flip(2)), atol=1e-5, rtol=1e-5)
    assert encoder(faces).shape == (2, FaceStatistics.dim)


def test_discriminants_find_the_direction_that_tells_identities_apart() -> None:
    random = np.random.default_rng(1)
    identity = np.repeat(np.arange(80), 5)
    encoded = random.normal(0, 5, (400, 30))
    encoded[:, 7] = np.arange(80)[identity] / 20 + random.normal(0, 0.1, 400)
    fitted = fit_discriminants(encoded, identity)
    assert fitted["projection"].shape == (30, DISCRIMINANTS)
    projected = (encoded - fitted["mean"].numpy()) @ fitted["projection"].numpy()
    assert abs(np.corrcoef(projected[:, 0], encoded[:, 7])[0, 1]) > 0.99


def test_projected_features_are_those_of_the_encoder(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", identities=6, store=tmp_path / "store")
    extract(
        corpus,
        VoiceConfig(encoder="statistics", frozen=True),
        FaceConfig(encoder="statistics", frozen=True),
        tmp_path / "statistics",
        audio_seconds=1.0,
    )
    made = tmp_path / "made"
    write_discriminants(tmp_path / "statistics", made)
    weights = {what: str(made / f"{what}.safetensors") for what in ("voice", "face")}
    extract(
        corpus,
        VoiceConfig(encoder="discriminants", weights=weights["voice"], frozen=True),
        FaceConfig(encoder="discriminants", weights=weights["face"], frozen=True),
        tmp_path / "again",
        audio_seconds=1.0,
    )
    for name in ("train", "test"):
        ours, wanted = (open_features(f, name) for f in (made / FEATURES, tmp_path / "again"))
        assert ours.extraction == wanted.extraction
        for what in ("voice_features", "face_features"):
            np.testing.assert_allclose(getattr(ours, what), getattr(wanted, what), atol=2e-3)
    with pytest.raises(UsageError, match="is there already"):
        write_discriminants(tmp_path / "statistics", made)
    with pytest.raises(UsageError, match="should be features by the encoders statistics"):
        write_discriminants(made / FEATURES, tmp_path / "twice")


def test_statistics_have_nothing_to_load() -> None:
    with pytest.raises(ValueError, match="weights must be null, frozen true"):
        VoiceConfig(encoder="statistics")
