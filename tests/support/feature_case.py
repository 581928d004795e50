"""Features in memory that voices and faces of an identity share something of, and runs on them."""

import copy
from typing import Any

import numpy as np

from vfsearch.config import RunConfig
from vfsearch.corpus.features import EncoderRecord, Extraction, Features
from vfsearch.corpus.layout import Identity, SplitName
from vfsearch.training.loop import Stores

DIM = 512


def features(
    name: SplitName, identities: int, *, seed: int, each: int = 3, dim: int = DIM
) -> Features:
    """Both modalities are noisy projections of one latent vector per identity."""
    random = np.random.default_rng(seed)
    latent = random.normal(size=(identities, 8))
    owner = np.repeat(np.arange(identities), each)
    # The same in every split: what is learned must hold for others.
    mix = np.random.default_rng(0).normal(size=(2, 8, dim)) / 3
    face, voice = (
        (latent[owner] @ m + random.normal(size=(len(owner), dim)) * 0.5).astype(np.float32)
        for m in mix
    )
    paths = [f"{k:04d}/{row}" for row, k in enumerate(owner)]
    encoder = EncoderRecord(encoder="small", weights=None, sha256=None, dim=dim)
    return Features(
        name=name,
        identities=tuple(
            Identity(
                voice_id=f"v{k:04d}",
                face_id=f"f{k:04d}",
                gender="f" if k % 2 else "m",
                nationality="X",
            )
            for k in range(identities)
        ),
        split_hash=f"{name}-{identities}-{seed}",
        face_features=face,
        face_identity=owner,
        face_paths=[f"f{path}.jpg" for path in paths],
        voice_features=voice,
        voice_identity=owner,
        voice_paths=[f"v{path}.wav" for path in paths],
        excluded=(),
        extraction=Extraction(
            voice=encoder,
            face=encoder,
            audio_seconds=10.0,
            face_size=112,
            software="0",
            splits={"train": "t", "val": "v"},
        ),
    )


def feature_stores(train: int = 20, val: int = 8) -> Stores:
    return Stores(train=features("train", train, seed=1), val=features("val", val, seed=2, each=2))


def feature_config(**changes: dict[str, Any] | int) -> RunConfig:
    """4 epochs of 3 steps: warm-up 3, learning 6, retraining 3; sections in ``changes`` add."""
    data: dict[str, Any] = {
        "seed": 3,
        "corpus": {"root": "unused", "features": "unused"},
        "model": {
            "face": {"encoder": "small", "frozen": True},
            "voice": {"encoder": "small", "frozen": True},
            "embedding_dim": 16,
            "dropout": 0.2,
        },
        "classifier": {"norm_bound": 2.0},
        "reweighting": {"every": 2},
        "training": {
            "batch": 8,
            "epoch_steps": 3,
            "augment": False,
            "stages": {
                "warm_up": 3,
                "weight_learning": 6,
                "retrain": 3,
                "learning_milestones": [5],
                "retrain_milestones": [2],
            },
        },
        "evaluation": {"galleries": [2], "strata": ["U"]},
        "workers": {"count": 1},
    }
    for section, values in changes.items():
        if isinstance(values, dict):
            _merge(data.setdefault(section, {}), copy.deepcopy(values))
        else:
            data[section] = values
    return RunConfig.model_validate(data)


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
