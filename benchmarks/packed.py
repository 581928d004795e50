"""Packed training against the same runs one after the other: member-steps per second, whole epochs.

Turn by turn, so that a busy machine slows both; the median of the rounds counts. CPU seconds are
shown beside wall time: they hold on a machine that others use too.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from benchmarks.record import Row, record
from vfsearch.config import RunConfig
from vfsearch.corpus.features import EncoderRecord, Extraction, Features
from vfsearch.corpus.layout import Identity
from vfsearch.training.distributed import World
from vfsearch.training.loop import deterministic
from vfsearch.training.meter import EpochMeter
from vfsearch.training.pack.chunk import Chunk, FeatureTensors
from vfsearch.training.pack.loop import CHUNK, threads
from vfsearch.training.run import Run

MEMBERS, ROUNDS = 32, 3
CPU = torch.device("cpu")


def split(identities: int, each: int = 10, dim: int = 512) -> Features:
    """Features as the project's own encoders make them, of noise."""
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(identities), each)
    encoder = EncoderRecord(encoder="small", weights=None, sha256=None, dim=dim)
    voice, face = random.normal(size=(2, len(owner), dim)).astype(np.float32)
    return Features(
        name="train",
        identities=tuple(
            Identity(voice_id=f"v{k}", face_id=f"f{k}", gender="f", nationality="X")
            for k in range(identities)
        ),
        split_hash="noise",
        face_features=face,
        face_identity=owner,
        face_paths=[f"f{row}.jpg" for row in range(len(owner))],
        voice_features=voice,
        voice_identity=owner,
        voice_paths=[f"v{row}.wav" for row in range(len(owner))],
        excluded=(),
        extraction=Extraction(
            voice=encoder, face=encoder, audio_seconds=10.0, face_size=112, software="0", splits={}
        ),
    )


def config(seed: int, identities: int) -> RunConfig:
    """The paper's heads and batch; half of the identities where there are fewer than 64."""
    encoder = {"encoder": "small", "frozen": True}
    return RunConfig.model_validate(
        {
            "seed": seed,
            "corpus": {"root": "unused", "features": "unused"},
            "model": {"face": encoder, "voice": encoder},
            "classifier": {"norm_bound": 10.0},
            "training": {
                "batch": 64 if identities >= 64 else 32,
                "epoch_steps": 10,
                "augment": False,
                "stages": {"warm_up": 100, "weight_learning": 100_000},
            },
            "workers": {"count": 1},
        }
    )


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Wall and CPU seconds per member-step."""
    wall, cpu = time.perf_counter(), time.process_time()
    steps = work()
    return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps


def alone(run: Run) -> int:
    """One epoch of a run by itself."""
    meter, first = EpochMeter(run.step), run.step
    run.begin_epoch()
    for _ in range(first, run.plan.epoch_end(first)):
        meter.add(run.advance(next(run.stream)))
    run.epoch += 1
    meter.table()
    return run.step - first


def measure(identities: int) -> list[Row]:
    """Rows of one size."""
    features = split(identities)

    def new(seed: int) -> Run:
        return Run(config(seed, identities), features, device=CPU, world=World())

    tensors = FeatureTensors.of(features, CPU)
    runs = [new(seed) for seed in range(MEMBERS)]
    chunks = [Chunk(runs[at : at + CHUNK], tensors) for at in range(0, MEMBERS, CHUNK)]
    solo = new(0)
    times = []
    with deterministic(CPU), threads(CPU) as pool:

        def together() -> int:
            before = sum(run.step for run in runs)
            for meters in pool.map(Chunk.epoch, chunks):
                for meter in meters:
                    meter.table()
            return sum(run.step for run in runs) - before

        alone(solo)
        together()
        for _ in range(ROUNDS):
            mine, its = timed(lambda: sum(alone(solo) for _ in range(8))), timed(together)
            times.append((*mine, *its))
    wall, cpu, packed_wall, packed_cpu = (median(column) for column in zip(*times, strict=True))
    where = f"{identities} identities, 512-d features"
    return [
        {
            "what": f"pack of {MEMBERS} / run alone, steps per second, {where}",
            "value": wall / packed_wall,
            "unit": "x",
            "goal": ">= 5",
        },
        {
            "what": f"pack of {MEMBERS} / run alone, steps per CPU second, {where}",
            "value": cpu / packed_cpu,
            "unit": "x",
            "goal": "-",
        },
        {"what": f"run alone, {where}", "value": cpu * 1e3, "unit": "CPU ms", "goal": "-"},
    ]


def main() -> None:
    record("packed", [row for identities in (60, 200) for row in measure(identities)])


if __name__ == "__main__":
    main()
