"""Sweeps of the engine in processes of their own: started, watched line by line, killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial

from vfsearch.search.study import read_sweep

TESTS = Path(__file__).parent.parent
PYTHONPATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])
"""Of drivers and workers: the helpers of the tests, and the tree that is tested."""
METRIC = "val/match_v2f_1to2"
Line = dict[str, Any]


def stub_sweep(name: str, margins: list[float], **changes: Any) -> dict[str, Any]:
    """A sweep for `support.engine_tasks.Curve`; the margins go out in this order."""
    epochs, pause = changes.pop("epochs", 4), changes.pop("pause", 0.05)
    workers = {"count": 2, "report_timeout": 60} | changes.pop("workers", {})
    return {
        "name": name,
        "base": {
            "corpus": {"root": "/nowhere"},
            "optimizer": {"lr": pause},
            "training": {"batch": 4, "stages": {"warm_up": epochs}},
            "workers": workers,
            "tracking": {"enabled": False},
        },
        "parameters": {"loss.margin": {"type": "float", "low": 1, "high": 100}},
        "objectives": [{"metric": METRIC, "direction": "maximize"}],
        "sampler": {"name": "random", "seed": 3},
        "start": [{"loss.margin": margin} for margin in margins],
        "budget": {"trials": len(margins)},
        "storage": None,
        **changes,
    }


class Drive:
    """One driver process."""

    def __init__(self, config: dict[str, Any] | Path, home: Path, *flags: str) -> None:
        if isinstance(config, dict):
            file = home / f"{config['name']}.json"
            file.write_text(json.dumps(config))
        else:
            file = config
        self.lines: list[Line] = []
        self._log = (home / f"{file.stem}.err").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "support" / "engine_drive.py"), str(file), *flags],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONPATH": PYTHONPATH, "VFSEARCH_HOME": str(home)},
            start_new_session=True,
        )

    def until(self, wanted: Callable[[Line], bool]) -> Line:
        """Read lines up to the first that is wanted."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line: Line = json.loads(text)
            self.lines.append(line)
            if wanted(line):
                return line
        raise AssertionError(f"ended before that, with {self.process.wait()}: {self.lines[-3:]}")

    def finish(self) -> int:
        """Read the rest; returns the exit code."""
        assert self.process.stdout is not None
        self.lines += [json.loads(text) for text in self.process.stdout]
        return self.process.wait()

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["kind"] == kind]

    def tree(self) -> list[psutil.Process]:
        """The driver and all that it started: Ray's servers and workers."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def close(self) -> None:
        """Kill the driver; Ray's processes die with it."""
        if self.process.poll() is None:
            family = self.tree()
            self.process.kill()
            psutil.wait_procs(family, timeout=30)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextmanager
def drive(config: dict[str, Any] | Path, home: Path, *flags: str) -> Iterator[Drive]:
    running = Drive(config, home, *flags)
    try:
        yield running
    finally:
        running.close()


def trials(name: str) -> list[FrozenTrial]:
    """Trials of a sweep under the current home."""
    study: optuna.Study = read_sweep(name)[1]
    return study.get_trials()


def log_of(home: Path, name: str, number: int) -> list[Line]:
    """What `Curve` noted of a trial."""
    path = home / "sweeps" / name / "trials" / f"t{number:03d}" / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def named(line: Line, kind: str, **facts: Any) -> bool:
    return line["kind"] == kind and all(line.get(key) == value for key, value in facts.items())
