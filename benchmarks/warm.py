"""What a trial costs beside its training: the plain sweep, ours cold, ours warm, in one run.

The plain sweep is written as the two libraries' guides have it: a Tune function trial that starts
its own 2-worker TorchTrainer. All three run the same trials: a model under DDP on gloo, some steps,
an epoch of a fixed length, a report.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

from benchmarks.record import Row, record

EPOCHS, SECONDS = 3, 0.1
WORKERS = 2
TRIALS = {"plain": 4, "cold": 4, "warm": 20}
METRIC = "val/match_v2f_1to2"


def epochs(margin: float) -> Any:
    """Values of a few epochs: real collectives, and time that passes without a core."""
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(16, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for epoch in range(1, EPOCHS + 1):
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(8, 16)).square().mean().backward()
            optimizer.step()
        time.sleep(SECONDS)
        yield epoch, margin * epoch / 1000


class Stub:
    """The trial for our workers (a `serve.Performer`)."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def perform(self, task: Any, reply: Any) -> dict[str, Any]:
        mark("begin", self.rank)
        for epoch, value in epochs(float(task.order.config["loss"]["margin"])):
            if self.rank == 0:
                reply(epoch, {METRIC: value})
            torch.distributed.barrier()
        mark("end", self.rank)
        return {"stopped": False, "epoch": EPOCHS, "best_epoch": EPOCHS, "best_value": 1.0}

    def failed(self, task: Any, reason: str) -> None:
        pass

    def close(self) -> None:
        pass


def mark(kind: str, rank: int) -> None:
    """Note when a trial's training begins and ends, on rank 0's clock."""
    if rank == 0:
        with Path(os.environ["VFSEARCH_HOME"], "marks.jsonl").open("a") as file:
            file.write(json.dumps([kind, time.time()]) + "\n")


def plain_worker(config: dict[str, Any]) -> None:
    """What every Train worker of the plain sweep runs."""
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    mark("begin", rank)
    for epoch, value in epochs(config["margin"]):
        ray.train.report({METRIC: value, "epoch": epoch})
    mark("end", rank)


def plain_trial(config: dict[str, Any]) -> None:
    """A Tune trial of the plain sweep."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        plain_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=WORKERS, resources_per_worker={"CPU": 1}
        ),
        run_config=ray.train.RunConfig(
            storage_path=config["storage"], callbacks=[TuneReportCallback()]
        ),
    ).fit()


def plain(home: Path, trials: int) -> None:
    import ray
    from ray import tune

    # Drivers get a resource of their own: with a CPU each they would wait for their own workers.
    ray.init(num_cpus=WORKERS, resources={"driver": 1}, log_to_driver=False,
             runtime_env={"env_vars": {"VFSEARCH_HOME": str(home)}})  # fmt: skip
    tuner = tune.Tuner(
        tune.with_resources(plain_trial, {"driver": 1}),
        param_space={"margin": tune.uniform(1, 64), "storage": str(home / "train")},
        tune_config=tune.TuneConfig(metric=METRIC, mode="max", num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(home), name="plain", verbose=0),
    )
    tuner.fit()
    ray.shutdown()


def ours(home: Path, trials: int, *, warm: bool) -> None:
    from benchmarks.engine import Silent
    from vfsearch.search.definition import SweepConfig
    from vfsearch.search.sweep import Mode, run_sweep

    config = SweepConfig.model_validate(
        {
            "name": home.name,
            "base": {
                "corpus": {"root": "/nowhere"},
                "training": {"batch": 4},
                "workers": {"count": WORKERS, "use_gpu": False},
                "tracking": {"enabled": False},
            },
            "parameters": {"loss.margin": {"type": "float", "low": 1, "high": 64}},
            "objectives": [{"metric": METRIC, "direction": "maximize"}],
            "sampler": {"name": "random", "seed": 1},
            "budget": {"trials": trials},
        }
    )
    mode = Mode(warm=warm, performer="benchmarks.warm:Stub")
    run_sweep(config, resume=False, watcher=Silent(), mode=mode)


def overheads(kind: str) -> list[float]:
    """Seconds from the start of a trial's training to the next one's, less its epochs."""
    with tempfile.TemporaryDirectory(prefix=f"{kind}-") as folder:
        home = Path(folder) / kind
        home.mkdir()
        environment = os.environ | {
            "VFSEARCH_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        subprocess.run(
            [sys.executable, "-m", "benchmarks.warm", kind, str(home)],
            env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        lines = (home / "marks.jsonl").read_text().splitlines()
    begins = [at for what, at in map(json.loads, lines) if what == "begin"]
    assert len(begins) == TRIALS[kind], f"{kind}: {len(begins)} trials began"
    return [b - a - EPOCHS * SECONDS for a, b in pairwise(begins)]


def main() -> None:
    if len(sys.argv) == 3:
        kind, home = sys.argv[1], Path(sys.argv[2])
        if kind == "plain":
            plain(home, TRIALS[kind])
        else:
            ours(home, TRIALS[kind], warm=kind == "warm")
        return
    measured = {kind: overheads(kind) for kind in TRIALS}
    medians = {kind: statistics.median(values) for kind, values in measured.items()}
    rows = [
        Row(what="plain sweep, per trial after the first", value=medians["plain"], unit="s",
            goal="-"),
        Row(what="cold trials, per trial after the first", value=medians["cold"], unit="s",
            goal="-"),
        Row(what="warm trials, per trial after the first", value=medians["warm"], unit="s",
            goal="<= 1.5"),
        Row(what="warm trials, the slowest", value=max(measured["warm"]), unit="s", goal="-"),
        Row(what="plain over warm", value=medians["plain"] / medians["warm"], unit="x",
            goal=">= 10"),
    ]  # fmt: skip
    record("warm", rows)


if __name__ == "__main__":
    main()
