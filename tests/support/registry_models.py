"""A corpus of tones and ellipses, and untrained checkpoints as runs of a tracking server."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import soundfile
import torch

from vfsearch.config import (
    CorpusConfig,
    EvaluationConfig,
    FaceConfig,
    ModelConfig,
    RunConfig,
    StagesConfig,
    TrainingConfig,
    VoiceConfig,
    WorkersConfig,
)
from vfsearch.corpus.layout import (
    Identity,
    format_identities,
    read_identities,
    scan_split,
    split_hash,
)
from vfsearch.model.alignment import build_model
from vfsearch.registry.policy import Improvement, Minimum, NoWorse, PromotionPolicy
from vfsearch.tracking.connection import Connection
from vfsearch.training.checkpoint import Best, CheckpointState, save_checkpoint

RATE = 16_000
SPLITS = {"train": 16, "val": 8, "test": 12}

LENIENT = PromotionPolicy(
    minimum=(Minimum(metric="match_v2f_1to2", at_least=0.01),),
    improvement=Improvement(metrics=()),
    no_worse=NoWorse(metrics=()),
    resamples=200,
    galleries=(2,),
)
"""Any model clears it: for tests of what follows a yes."""

STRICT = LENIENT.model_copy(
    update={"improvement": Improvement(metrics=("match_v2f_1to2",), margin=0.99)}
)
"""No model is better than a champion by so much."""


def write_corpus(root: Path, each: int = 3, seed: int = 0) -> CorpusConfig:
    """Pitch and hue grow together over identities, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    number = 0
    for split, count in SPLITS.items():
        people = []
        for _ in range(count):
            number += 1
            place = rng.uniform()
            who = Identity(
                voice_id=f"id{number:05d}",
                face_id=f"Person_{number}",
                gender="m" if place < 0.5 else "f",
                nationality="UK" if number % 2 else "USA",
            )
            people.append(who)
            for take in range(each):
                _write_voice(root / "wav" / who.voice_id / "clip" / f"{take:05d}.wav", place, rng)
                _write_face(root / "faces" / who.face_id / f"{take:05d}.jpg", place, rng)
        (root / f"vox1_{split}.csv").write_bytes(format_identities(people, split).encode())
    return CorpusConfig(root=root, face_size=32)


def _write_voice(path: Path, place: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(RATE * rng.uniform(1.0, 1.5))) / RATE
    pitch = 100 * 2 ** (2 * place + rng.normal(0, 0.03))
    harmonics = np.arange(1, 8)[:, None]
    tone = (np.sin(2 * np.pi * pitch * harmonics * time) / harmonics).sum(axis=0)
    noise = rng.normal(0, 0.02, len(time))
    soundfile.write(path, (0.2 * tone + noise).astype(np.float32), RATE, subtype="PCM_16")


def _write_face(path: Path, place: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hue = int(120 * np.clip(place + rng.normal(0, 0.02), 0, 1))
    picture = np.full((48, 48, 3), (0, 0, 90), np.uint8)
    middle = tuple(int(v) for v in 24 + rng.integers(-3, 4, 2))
    cv2.ellipse(picture, middle, (14, 19), 0, 0, 360, (hue, 200, 200), thickness=-1)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_HSV2BGR))


def run_config(corpus: CorpusConfig, seed: int = 0) -> RunConfig:
    """The smallest run of this corpus."""
    return RunConfig(
        seed=seed,
        corpus=corpus,
        model=ModelConfig(
            face=FaceConfig(encoder="small"),
            voice=VoiceConfig(encoder="small"),
            embedding_dim=16,
            dropout=0.0,
        ),
        training=TrainingConfig(
            batch=16,
            audio_seconds=(0.8, 1.0),
            stages=StagesConfig(warm_up=60, weight_learning=0, learning_milestones=()),
            epoch_steps=30,
        ),
        evaluation=EvaluationConfig(audio_seconds=1.0, galleries=(2,), strata=("U",)),
        workers=WorkersConfig(count=1),
    )


def untrained(corpus: CorpusConfig, out: Path, seed: int) -> Path:
    """A checkpoint of a model that has learned nothing, different for each seed."""
    config = run_config(corpus, seed)
    people = read_identities(corpus.root / corpus.train_csv)
    torch.manual_seed(seed)
    model = build_model(config.model, len(people))
    state = CheckpointState(
        config=config,
        step=1,
        epoch=1,
        sampler={},
        best=Best(epoch=1, value=0.5),
        history=[{"val/match_v2f_1to2": 0.5}],
        split_hash=split_hash(scan_split(corpus, "train")),
        identities=[who.voice_id for who in people],
    )
    return save_checkpoint(out / "checkpoints", state, model.state_dict(), {})


def upload_run(connection: Connection, checkpoint: Path, **tags: str) -> str:
    """A finished run with this checkpoint as its best."""
    client = connection.client()
    run = client.create_run(connection.experiment_id, tags=tags)
    connection.store(run.info.artifact_uri).upload_folder(checkpoint, "checkpoints/best")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


@dataclass(frozen=True)
class Models:
    """Makes runs with untrained models of one corpus."""

    corpus: CorpusConfig
    scratch: Path

    def checkpoint(self, seed: int) -> Path:
        """Folder of an untrained checkpoint."""
        folder = self.scratch / f"seed{seed}"
        done = folder / "checkpoints" / "best"
        return done if done.exists() else untrained(self.corpus, folder, seed)

    def run(self, connection: Connection, seed: int) -> str:
        """Run whose best checkpoint it is."""
        return upload_run(connection, self.checkpoint(seed))
