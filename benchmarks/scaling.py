"""What data-parallel workers add to a step: time and overlap, on gloo over loopback.

The encoders have the paper's parameters in as many layers, but their computing is a sleep, half as
long forward as backward: workers need no core of their own, and what is left over is the step's own
work and the communication. Everything else (loader, gather, loss, DDP, optimiser) is the project's.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import Row, record
from benchmarks.step import IDENTITIES, settings, store
from vfsearch.corpus.batches import BatchStream
from vfsearch.model.alignment import AlignmentModel, build_head
from vfsearch.training import run as training_run
from vfsearch.training.distributed import World

WORLDS = (1, 2, 4)
BATCH, SECONDS, STEPS, WARM = 64, 1.2, 6, 2
FACE, VOICE, DIM = 43_574_976, 1_437_078, 128
LAYERS = 12


class _Asleep(torch.autograd.Function):
    """Passes features on after a while; the gradient of the weight is there after twice that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, seconds: float) -> Tensor:
        ctx.seconds, ctx.like = seconds, weight
        time.sleep(seconds)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        time.sleep(2 * ctx.seconds)
        return grads[0], torch.zeros((), dtype=ctx.like.dtype).expand_as(ctx.like), None


class Sleeper(nn.Module):
    """An encoder of so many parameters."""

    def __init__(self, parameters: int, seconds: float) -> None:
        super().__init__()
        share = [parameters // LAYERS] * (LAYERS - 1)
        share.append(parameters - sum(share))
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(count)) for count in share)
        self.seconds = seconds / LAYERS / 3

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1)[:, :512].float().requires_grad_()
        for weight in self.weights:
            x = _Asleep.apply(x, weight, self.seconds)
        return x


def build(*_: Any, **__: Any) -> AlignmentModel:
    return AlignmentModel(
        face=Sleeper(FACE, 0.9 * SECONDS),
        voice=Sleeper(VOICE, 0.1 * SECONDS),
        face_head=build_head(512, DIM, 0.5),
        voice_head=build_head(512, DIM, 0.5),
        classifier=nn.Linear(DIM, IDENTITIES, bias=False),
    )


def worker(folder: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous-{size}", rank=rank, world_size=size
        )
    training_run.build_model = build  # the sleepers in the place of the encoders
    config = settings(BATCH).model_copy(
        update={"workers": settings(BATCH).workers.model_copy(update={"count": size})}
    )
    run = training_run.Run(config, store(), device=torch.device("cpu"), world=World.current())
    assert isinstance(run.stream, BatchStream)
    run.begin_epoch()
    times = []
    for _ in range(STEPS):
        if size > 1:
            dist.barrier()
        started = time.perf_counter()
        run.advance(next(run.stream))
        times.append(time.perf_counter() - started)
    found: dict[str, Any] = {"seconds": statistics.median(times[WARM:])}
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        run.advance(next(run.stream))
    found |= overlap(seen.events())
    if rank == 0:
        (folder / f"{size}.json").write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


def overlap(events: Iterable[Any]) -> dict[str, float]:
    """Collectives of a step, and the share of the all-reduce that runs beside the backward."""
    events = list(events)
    reduced = [e for e in events if e.name == "gloo:all_reduce"]
    gathered = [e for e in events if e.name == "gloo:all_gather"]
    backward = [e for e in events if e.name.endswith("evaluate_function: _AsleepBackward")]
    beside = total = 0.0
    for event in reduced:
        start, end = event.time_range.start, event.time_range.end
        total += end - start
        for other in backward:
            low, high = max(start, other.time_range.start), min(end, other.time_range.end)
            beside += max(0.0, high - low)
    return {
        "collectives": len(reduced) + len(gathered),
        "overlap": beside / total if total else 0.0,
    }


def main() -> None:
    if len(sys.argv) == 4:
        worker(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in WORLDS:
            workers = [
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", folder,
                     str(rank), str(size)]
                )
                for rank in range(size)
            ]  # fmt: skip
            codes = [each.wait() for each in workers]
            if any(codes):
                raise SystemExit(f"{size} workers failed")
            found = json.loads((Path(folder) / f"{size}.json").read_text())
            name = f"{size} worker" + "s" * (size > 1)
            rows.append(
                Row(what=f"{name}: step over its sleep of {SECONDS} s",
                    value=1000 * (found["seconds"] - SECONDS), unit="ms", goal="-")
            )  # fmt: skip
            if size == 1:
                continue
            rows += [
                Row(what=f"{name}: collectives in a step", value=found["collectives"], unit="",
                    goal="-"),
                Row(what=f"{name}: all-reduce beside the backward pass",
                    value=100 * found["overlap"], unit="%", goal="-"),
            ]  # fmt: skip
    record("scaling", rows)


if __name__ == "__main__":
    main()
