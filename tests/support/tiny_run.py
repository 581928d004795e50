"""A run small enough for tests: an in-memory corpus that can be learned, tiny settings.

As a script it is one worker process of such a run:
``python tiny_run.py OUT RANK WORLD RENDEZVOUS KILL_AT``; it writes ``OUT/outcome.json``.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from vfsearch.config import RunConfig
from vfsearch.corpus.layout import Identity
from vfsearch.corpus.store import Store
from vfsearch.training.loop import EpochReport, Stores, train


def tiny_store(name: str, identities: int, *, seed: int, each: int = 3, side: int = 56) -> Store:
    """Identity k: faces of a colour and voices of a pitch that both follow one latent."""
    random = np.random.default_rng(seed)
    latent = random.permutation(np.linspace(0, 1, identities))
    owner = np.repeat(np.arange(identities), each)
    faces = np.empty((len(owner), side, side, 3), np.uint8)
    samples = []
    time = np.arange(16_000) / 16_000
    for row, k in enumerate(owner):
        colour = np.array([40 + 170 * latent[k], 210 - 170 * latent[k], 128])
        faces[row] = np.clip(colour + random.normal(0, 12, (side, side, 3)), 0, 255)
        tone = np.sin(2 * np.pi * (200 + 3000 * latent[k]) * time)
        samples.append((8000 * tone + random.normal(0, 400, len(time))).astype(np.int16))
    paths = [f"{k:03d}/{row}" for row, k in enumerate(owner)]
    return Store(
        name=name,
        identities=tuple(
            Identity(voice_id=f"v{k:03d}", face_id=f"f{k:03d}", gender="mf"[k % 2], nationality="X")
            for k in range(identities)
        ),
        split_hash=f"{name}-{identities}-{seed}",
        faces=faces,
        face_identity=owner,
        face_paths=[f"f{p}.jpg" for p in paths],
        samples=np.concatenate(samples),
        voice_offsets=np.arange(len(owner)) * len(time),
        voice_lengths=np.full(len(owner), len(time)),
        voice_identity=owner,
        voice_paths=[f"v{p}.wav" for p in paths],
        excluded=(),
    )


def tiny_stores() -> Stores:
    return Stores(
        train=tiny_store("train", 20, seed=1), val=tiny_store("val", 8, seed=2, each=2)
    )  # fmt: skip


def tiny_config(**changes: object) -> RunConfig:
    """4 epochs of 3 steps: warm-up 3, learning 6, retraining 3."""
    data: dict[str, object] = {
        "seed": 3,
        "corpus": {"root": "unused"},
        "model": {
            "face": {"encoder": "small"},
            "voice": {"encoder": "small"},
            "embedding_dim": 16,
            "dropout": 0.2,
        },
        "classifier": {"norm_bound": 2.0},
        "reweighting": {"every": 2},
        "training": {
            "batch": 8,
            "epoch_steps": 3,
            "audio_seconds": [0.5, 0.75],
            "stages": {
                "warm_up": 3,
                "weight_learning": 6,
                "retrain": 3,
                "learning_milestones": [5],
                "retrain_milestones": [2],
            },
        },
        "evaluation": {"galleries": [2], "strata": ["U"], "audio_seconds": 1.0},
        "workers": {"count": 1},
    }
    return RunConfig.model_validate(data | changes)


class Recorder:
    """Keeps reports; kills its own process, hard, after the report of an epoch."""

    def __init__(self, kill_at: int = 0, stop_at: int = 0) -> None:
        self.kill_at, self.stop_at = kill_at, stop_at
        self.reports: list[EpochReport] = []

    def report(self, report: EpochReport) -> bool:
        self.reports.append(report)
        if report.epoch == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return report.epoch != self.stop_at


def main(out: Path, rank: int, world: int, rendezvous: str, kill_at: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=rendezvous, rank=rank, world_size=world
        )
    outcome = train(
        tiny_config(),
        out,
        Recorder(kill_at if rank == 0 else 0),
        device=torch.device("cpu"),
        stores=tiny_stores(),
    )
    (out / f"outcome-{rank}.json").write_text(json.dumps(list(outcome.history)))
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
