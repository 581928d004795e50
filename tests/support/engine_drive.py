"""A sweep in a process of its own, for tests that kill or interrupt it: prints one JSON line each.

Usage: engine_drive.py SWEEP.json [--resume] [--cold] [--performer MODULE:CLASS]
       engine_drive.py RUN.yaml --single OUT
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfsearch.config import load_run
from vfsearch.errors import VfsearchError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.records import Asked, Ended
from vfsearch.search.single import run_single
from vfsearch.search.sweep import Mode, run_sweep


class Lines:
    """Prints what happens."""

    def started(self, asked: Asked) -> None:
        say("started", number=asked.number, epoch=asked.epoch, params=asked.params)

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        say("epoch", number=number, epoch=epoch)

    def ended(self, ended: Ended) -> None:
        say("ended", number=ended.number, state=ended.state, reason=ended.reason)


def say(kind: str, **facts: Any) -> None:
    print(json.dumps({"kind": kind, "at": time.time(), **facts}), flush=True)


def single(config: Path, out: Path) -> None:
    outcome = run_single(
        load_run(config),
        out,
        name="single",
        progress=lambda epoch, metrics: say("epoch", epoch=epoch),
    )
    say("done", best_value=outcome.best_value, epoch=outcome.epoch)


def main() -> None:
    if "--single" in sys.argv:
        single(Path(sys.argv[1]), Path(sys.argv[3]))
        return
    config = SweepConfig.model_validate(json.loads(Path(sys.argv[1]).read_text()))
    performer = "support.engine_tasks:Curve"
    if "--performer" in sys.argv:
        performer = sys.argv[sys.argv.index("--performer") + 1]
    mode = Mode(warm="--cold" not in sys.argv, performer=performer)
    try:
        outcome = run_sweep(config, resume="--resume" in sys.argv, watcher=Lines(), mode=mode)
    except VfsearchError as error:
        say("error", type=type(error).__name__, message=str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    say("done", stop_reason=outcome.stop_reason)


if __name__ == "__main__":
    main()
