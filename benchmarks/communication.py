"""What the workers of one trial send to each other in a step: counted bytes beside computed ones.

The workers run in a network namespace of their own (root), so that its loopback device carries
their traffic and nothing else. gloo, the small encoders, the global batch of the paper.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from benchmarks.record import Row, record
from benchmarks.step import store
from vfsearch.config import RunConfig
from vfsearch.training.distributed import World
from vfsearch.training.run import Run

IDENTITIES, BATCH, DIM, STEPS = 600, 64, 64, 4
SIDE, SECONDS = 56, 0.5


def settings(workers: int) -> RunConfig:
    small = {"encoder": "small"}
    return RunConfig.model_validate(
        {
            "corpus": {"root": "unused", "face_size": SIDE},
            "model": {"face": small, "voice": small, "embedding_dim": DIM},
            "training": {"batch": BATCH, "audio_seconds": [SECONDS, SECONDS], "augment": False},
            "workers": {"count": workers},
            "tracking": {"enabled": False},
        }
    )


def computed(parameters: int, workers: int) -> dict[str, float]:
    """Bytes that each worker sends in a step."""
    return {
        "gradients": 2 * (workers - 1) / workers * 4 * parameters,
        "embeddings": (workers - 1) * BATCH / workers * 2 * DIM * 4,
        "labels": (workers - 1) * BATCH / workers * 8,
    }


def sent() -> int:
    """Bytes that the loopback device of this network namespace has sent."""
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()
    (loopback,) = [line for line in lines if line.strip().startswith("lo:")]
    return int(loopback.partition(":")[2].split()[8])


def worker(folder: Path, rank: int, workers: int) -> None:
    """Print on rank 0: parameters, and bytes of all workers per step."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers
    )
    data = store(IDENTITIES, side=SIDE, seconds=SECONDS)
    run = Run(settings(workers), data, device=torch.device("cpu"), world=World.current())
    run.begin_epoch()
    run.advance(next(run.stream))  # DDP makes its buckets anew after the first step
    batches = [next(run.stream) for _ in range(STEPS)]
    torch.distributed.barrier()
    before = sent()
    for batch in batches:
        run.advance(batch)
    torch.distributed.barrier()
    if rank == 0:
        learned = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        print(learned, (sent() - before) / STEPS, flush=True)
    torch.distributed.destroy_process_group()


def measure(workers: int) -> tuple[int, float]:
    """Parameters, and bytes that each worker sent in a step."""
    with TemporaryDirectory() as folder:
        each = f"{sys.executable} -m benchmarks.communication --folder {folder} --of {workers}"
        ranks = " & ".join(f"{each} --rank {rank}" for rank in range(workers))
        script = f"ip link set lo up; {ranks} & wait"
        environment: dict[str, Any] = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(
            ["unshare", "--net", "bash", "-c", script],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    parameters, total = done.stdout.split()
    return int(parameters), float(total) / workers


def main(
    workers: Annotated[list[int], typer.Option(help="Numbers of workers.")] = [2, 4],  # noqa: B006
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
    of: Annotated[int, typer.Option(hidden=True)] = 0,
    rank: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Count, and compare."""
    if folder is not None:
        worker(folder, rank, of)
        return
    rows: list[Row] = []
    for number in workers:
        parameters, counted = measure(number)
        parts = computed(parameters, number)
        each = f"{number} workers"
        rows += [
            {"what": f"{each}: counted bytes / computed", "value": counted / sum(parts.values()),
             "unit": "", "goal": "<= 1.05"},
            {"what": f"{each}: sent by each in a step", "value": counted / 2**20,
             "unit": "MiB", "goal": "-"},
            {"what": f"{each}: embeddings and labels / gradients, computed",
             "value": (parts["embeddings"] + parts["labels"]) / parts["gradients"],
             "unit": "", "goal": "-"},
        ]  # fmt: skip
    record("communication", rows)


if __name__ == "__main__":
    typer.run(main)
