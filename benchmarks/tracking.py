"""What tracking costs a training step when the servers are 200 ms away.

One training run on rank 0, in blocks of epochs with and without its record (A B B A ...), so that
both see the same model, data and noise of the machine. A tracked block does what a trial of a sweep
does: metrics per epoch and per step, system metrics, and a checkpoint on its way to S3; it ends
when everything is sent. Servers and the delaying proxies are processes of their own.

On a machine that other work shares, the time that the training thread waited for a core (which the
kernel counts) says nothing about tracking; it is taken off. What is left is its computing, and its
waiting for the disk and for the interpreter's lock. The rows by the clock keep it.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Row, record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.tiny_run import tiny_config, tiny_store  # noqa: E402

from vfsearch.config import RunConfig, TrackingConfig  # noqa: E402
from vfsearch.search.run_record import RunRecord  # noqa: E402
from vfsearch.search.tracks import Tracked  # noqa: E402
from vfsearch.tracking import stack  # noqa: E402
from vfsearch.tracking.connection import Connection, connect  # noqa: E402
from vfsearch.tracking.run_key import RunKey  # noqa: E402
from vfsearch.tracking.system import SystemSampler  # noqa: E402
from vfsearch.tracking.trial_log import TrialLog, spool_root  # noqa: E402
from vfsearch.training.loop import EpochReport, Stores, train  # noqa: E402

DELAY = 0.2
STEPS, BLOCK, PAIRS = 100, 1, 12
"""An evaluation every 100 steps, as in ``configs/paper.yaml``; each tracked one sends a checkpoint,
where a trial sends one at its end."""
SAMPLES = 2.0
"""Seconds between two samples of the system, five times as often as by default."""

PROXY = """
import sys
from support.proxy import Proxy
with Proxy(sys.argv[1]) as proxy:
    proxy.delay = float(sys.argv[2])
    print(proxy.url, flush=True)
    sys.stdin.read()
    print(len(proxy.seen), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Clock:
    """Seconds, in which the training thread reads them."""

    wall: float
    waited: float
    """That this thread was ready to run and had no core."""
    thread: float
    """Of a core, for this thread."""
    process: float
    """Of a core, for all threads."""

    @classmethod
    def read(cls) -> "Clock":
        waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
        return cls(time.perf_counter(), waited, time.thread_time(), time.process_time())

    def __sub__(self, other: "Clock") -> "Clock":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Clock(*(mine - theirs for mine, theirs in pairs))

    def __add__(self, other: "Clock") -> "Clock":
        return self - (Clock(0, 0, 0, 0) - other)


class Interleaved:
    """Records every other block of epochs and measures all of them."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.blocks: list[Clock] = []
        """Steps of each block, with what tracking did on their thread."""
        self.others: list[float] = []
        """Seconds of a core for other threads, per block, until everything was sent."""
        self.tracked: list[bool] = []
        self._sampler: SystemSampler | None = None
        self._begun = self._since = Clock.read()

    def report(self, report: EpochReport) -> bool:
        """Between two epochs; what is tracked here belongs to the epoch that begins."""
        done = report.epoch - 1  # the first epoch warms up
        if done:
            self.blocks[-1] += Clock.read() - self._since
        if done % BLOCK == 0:
            self._turn(done // BLOCK)
        self._since = Clock.read()
        if self.tracked[-1]:
            self.record.epoch(report)
            if done % BLOCK == 0:  # what the trial before has left to send
                self._log.artifact(report.checkpoint, f"checkpoints/{report.epoch}")
        return True

    def _turn(self, block: int) -> None:
        """End a block and begin the next one."""
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
        while not self._log._spool.is_sent():
            time.sleep(0.01)
        if block:
            spent = Clock.read() - self._begun
            self.others.append(spent.process - spent.thread)
        self.blocks.append(Clock(0, 0, 0, 0))
        self.tracked.append(block % 4 in (1, 2))
        if self.tracked[-1]:
            self._sampler = SystemSampler(self._log, [os.getpid()], SAMPLES)
            self._sampler.start()
        self._begun = Clock.read()

    @property
    def _log(self) -> TrialLog:
        assert self.record._log is not None
        return self.record._log


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
    plain = tiny_config()
    epochs = 1 + 2 * PAIRS * BLOCK
    training = {
        "batch": 16,
        "epoch_steps": STEPS,
        "audio_seconds": (1.0, 1.0),
        "stages": {"warm_up": STEPS * epochs, "weight_learning": 0},
    }
    # Its own sampler would sample in both kinds of blocks.
    changes = {"training": training, "tracking": {"system_seconds": 0}}
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


def pairs(values: list[float], tracked: list[bool]) -> list[tuple[float, float]]:
    """(tracked, plain) of each two blocks that follow one another."""
    return [
        (values[at], values[at + 1]) if tracked[at] else (values[at + 1], values[at])
        for at in range(0, 2 * PAIRS, 2)
    ]


def row(what: str, found: list[float], unit: str, goal: str = "-") -> Row:
    """The median over pairs, with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(found, (10_000, len(found)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    interval = [float(low), float(high)]
    return Row(what=what, value=float(np.median(found)), unit=unit, goal=goal, interval=interval)


def rows(done: Interleaved) -> list[Row]:
    def growth(values: list[float]) -> list[float]:
        return [100 * (mine / plain - 1) for mine, plain in pairs(values, done.tracked)]

    steps = BLOCK * STEPS
    undisturbed = [block.wall - block.waited for block in done.blocks]
    thread = pairs([block.thread for block in done.blocks], done.tracked)
    others = pairs(done.others, done.tracked)
    return [
        row("time per step grows with servers 200 ms away", growth(undisturbed), "%", "< 2"),
        row(
            "processor time of the other threads, of the training thread's",
            [100 * (o[0] - o[1]) / t[1] for o, t in zip(others, thread, strict=True)],
            "%",
        ),
        row(
            "the first by the clock, waiting for a core included",
            growth([block.wall for block in done.blocks]),
            "%",
        ),
        row("a step without tracking", [1000 * t[1] / steps for t in thread], "ms"),
        Row(what="epochs and checkpoints sent", value=PAIRS * (BLOCK + 1), unit="", goal="-"),
    ]


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
        record("tracking", rows(measure(far, home)))


if __name__ == "__main__":
    main()
