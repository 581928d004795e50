"""What tracking costs a training step when the servers are 200 ms away.

One training run on rank 0, in blocks of epochs with and without its record, in turn, so that both
see the same model, data and noise of the machine. A tracked block does what a trial of a sweep
does: metrics per epoch and per step, system metrics, and the checkpoints of the trial before on
their way to S3. Servers and the delaying proxies are processes of their own.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.record import record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.tiny_run import tiny_config, tiny_store  # noqa: E402

from vfsearch.config import RunConfig, TrackingConfig  # noqa: E402
from vfsearch.search.run_record import RunRecord  # noqa: E402
from vfsearch.search.tracks import Tracked  # noqa: E402
from vfsearch.tracking import stack  # noqa: E402
from vfsearch.tracking.connection import Connection, connect  # noqa: E402
from vfsearch.tracking.run_key import RunKey  # noqa: E402
from vfsearch.tracking.trial_log import spool_root  # noqa: E402
from vfsearch.training.loop import EpochReport, Stores, train  # noqa: E402

DELAY = 0.2
STEPS, BLOCK, PAIRS = 25, 3, 10

PROXY = """
import sys
from support.proxy import Proxy
with Proxy(sys.argv[1]) as proxy:
    proxy.delay = float(sys.argv[2])
    print(proxy.url, flush=True)
    sys.stdin.read()
    print(len(proxy.seen), flush=True)
"""


class Interleaved:
    """Records every other block of epochs; notes the wall time of each epoch."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.seconds: list[float] = []
        self.reports = 0
        self.artifacts = 0
        self._since = 0.0

    def report(self, report: EpochReport) -> bool:
        log = self.record._log
        assert log is not None
        block, place = divmod(report.epoch - 1, BLOCK + 1)
        if block % 2:
            self.record.epoch(report)
            self.reports += 1
            if place == 0:  # what the trial before has left to send
                log.artifact(report.checkpoint, f"checkpoints/{report.epoch}")
                self.artifacts += 1
        elif place == 0:
            while not log._spool.is_sent():  # the rest of the tracked block is not this one's
                time.sleep(0.01)
        # The first epoch of a block begins with what is above; the others are measured.
        if place > 0:
            self.seconds.append(time.perf_counter() - self._since)
        self._since = time.perf_counter()
        return True


@contextmanager
def away(url: str) -> Iterator[str]:
    """The same server, ``DELAY`` seconds away."""
    with subprocess.Popen(
        [sys.executable, "-c", PROXY, url, str(DELAY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()
        print(f"requests to {url}: {process.stdout.read().strip()}")


def config() -> RunConfig:
    blocks = 2 * PAIRS
    plain = tiny_config()
    training = {
        "batch": 16,
        "epoch_steps": STEPS,
        "audio_seconds": (1.0, 1.0),
        "stages": {"warm_up": STEPS * blocks * (BLOCK + 1), "weight_learning": 0},
    }
    changes = {"training": training, "tracking": {"system_seconds": 10.0}}
    return RunConfig.model_validate(plain.model_dump(mode="json") | changes)


def measure(connection: Connection, folder: Path) -> Interleaved:
    settings = config()
    tracked = Tracked(
        connection=connection,
        key=RunKey(sweep="benchmark", trial=0),
        spool=spool_root(folder, connection.experiment),
    )
    record = RunRecord(settings, folder / "run", tracked, seeds=[0], workers=[os.getpid()], world=1)
    reporter = Interleaved(record)
    stores = Stores(train=tiny_store("train", 32, seed=1), val=tiny_store("val", 8, seed=2, each=2))
    outcome = train(settings, folder / "run", reporter, device=torch.device("cpu"), stores=stores)
    record.ended(outcome)
    record.complete(outcome, 120)
    return reporter


def ratios(seconds: list[float]) -> list[float]:
    """Tracked over untracked, per pair of blocks, by the medians of their epochs."""
    blocks = [median(seconds[at : at + BLOCK]) for at in range(0, len(seconds), BLOCK)]
    return [tracked / plain for plain, tracked in zip(blocks[::2], blocks[1::2], strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        home = Path(scratch)
        info = stack.up(home)
        opened.callback(stack.down, home)
        near = connect(TrackingConfig(uri=info.tracking_uri), home=home)
        uri, s3 = (opened.enter_context(away(url)) for url in (near.uri, info.s3_endpoint))
        storage = dataclasses.replace(near.storage, endpoint=s3)
        far = dataclasses.replace(near, uri=uri, storage=storage)
        far.client()  # MLflow is imported once per worker, not per trial
        done = measure(far, home)
        found = ratios(done.seconds)
        random = np.random.default_rng(0)
        draws = np.median(random.choice(found, (10_000, len(found))), axis=1)
        low, high = (100 * (np.quantile(draws, q) - 1) for q in (0.025, 0.975))
        print(json.dumps({"ratios": [round(one, 4) for one in found]}))
        step = 1000 * median(done.seconds) / STEPS
        rows = [
            ("time per step grows with servers 200 ms away", 100 * (median(found) - 1), "%", "< 2"),
            ("95 % interval of it, from", low, "%", "-"),
            ("95 % interval of it, to", high, "%", "-"),
            ("a step", step, "ms", "-"),
            ("tracked epochs", done.reports, "", "-"),
            ("checkpoints sent meanwhile", done.artifacts, "", "-"),
        ]
        record(
            "tracking",
            [
                {"what": what, "value": float(value), "unit": unit, "goal": goal}
                for what, value, unit, goal in rows
            ],
        )


if __name__ == "__main__":
    main()
