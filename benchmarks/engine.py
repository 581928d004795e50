"""What the engine costs per trial, from 10 to 10,000 trials in the study, beside Optuna alone.

No worker is started: a trial is asked, reports three epochs, is judged after each and told. The
same writes by Optuna alone (ask, suggest, report, attributes, tell; no pruner) on a copy of the
same SQLite file are the price of a durable study; the rest is the engine's own. Processor time, so
that other work on the machine counts less.
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from time import process_time

import optuna
from optuna.storages import RDBStorage

from benchmarks.record import Row, record
from vfsearch.search.definition import SweepConfig
from vfsearch.search.ledger import Ledger
from vfsearch.search.records import Asked, Ended
from vfsearch.search.study import open_study

SIZES = (10, 100, 1_000, 10_000)
BEGUN, TIMED, EPOCHS = 10, 12, 3
METRIC = "val/match_v2f_1to2"
RANGES = {
    "loss.margin": (1.0, 64.0),
    "loss.explicit": (0.1, 2.0),
    "reweighting.temperature": (0.05, 10.0),
    "optimizer.lr": (0.001, 0.1),
}
"""All on a log scale."""


def sweep(sampler: str, pruner: str) -> SweepConfig:
    """A sweep that does not end by itself."""
    parameters = {
        name: {"type": "float", "low": low, "high": high, "log": True}
        for name, (low, high) in RANGES.items()
    }
    return SweepConfig.model_validate(
        {
            "name": "stub",
            "base": {"corpus": {"root": "/nowhere"}, "tracking": {"enabled": False}},
            "parameters": parameters,
            "objectives": [{"metric": METRIC, "direction": "maximize"}],
            "sampler": {"name": sampler, "seed": 1},
            "pruner": {"name": pruner, "grace": 1},
            "budget": {"trials": 100_000},
        }
    )


class Silent:
    """Is told about the progress."""

    def started(self, asked: Asked) -> None:
        """Nothing."""

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def ended(self, ended: Ended) -> None:
        """Nothing."""


def metrics(index: int, epoch: int) -> dict[str, float]:
    """Each trial a little better than the last, so that none is pruned."""
    others = {f"val/metric_{k}": 0.5 + k / 100 for k in range(12)}
    return {METRIC: 0.5 + epoch / 10 + index * 1e-6, **others}


def engine(config: SweepConfig, count: int, *, resume: bool) -> list[float]:
    """Seconds of each further trial through the ledger, as Tune's loop drives it."""
    with open_study(config, create=True, resume=resume) as study:
        ledger = Ledger(
            study=study,
            slots=1,
            gpus=0.0,
            dispatch=lambda asked: {"number": asked.number},
            facts=lambda _number: {},
            watcher=Silent(),
        )
        first = BEGUN if resume else 0  # better than the first ones
        return [_trial(ledger, index) for index in range(first, first + count)]


def _trial(ledger: Ledger, index: int) -> float:
    started = process_time()
    if ledger.next("t") is None:
        raise RuntimeError(ledger.stop_reason)
    for epoch in range(1, EPOCHS + 1):
        result = {"epoch": epoch, "metrics": json.dumps(metrics(index, epoch))}
        if ledger.result("t", result):
            raise RuntimeError(f"trial {index} was stopped after epoch {epoch}")
    ledger.ended("t", {"kind": "completed", "retries": 0}, lost=False)
    return process_time() - started


def optuna_alone(config: SweepConfig, file: Path, count: int) -> list[float]:
    """Seconds of each further trial with Optuna's own calls."""
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=1, multivariate=True, constant_liar=True)
        if config.sampler.name == "tpe"
        else optuna.samplers.RandomSampler(seed=1)
    )
    storage = RDBStorage(f"sqlite:///{file}")
    study = optuna.load_study(study_name="stub", storage=storage, sampler=sampler)
    times = []
    for index in range(count):
        started = process_time()
        trial = study.ask()
        for name, (low, high) in RANGES.items():
            trial.suggest_float(name, low, high, log=True)
        trial.set_user_attr("asked", True)
        for epoch in range(1, EPOCHS + 1):
            values = metrics(index, epoch)
            trial.report(values[METRIC], epoch)
            trial.set_user_attr("curves", {name: [value] * epoch for name, value in values.items()})
            trial.set_user_attr("pruning", {"epoch": epoch, "prune": False})
        for name in ("seconds", "gpu_seconds", "retries", "epochs", "best_epoch"):
            trial.set_user_attr(name, 1.0)
        study.tell(trial, values[METRIC])
        times.append(process_time() - started)
    storage.remove_session()
    storage.engine.dispose()
    return times


def grow(file: Path, size: int) -> None:
    """Repeat the trials of a study, with all that belongs to them, up to ``size``."""
    parts = ("params", "values", "intermediate_values", "user_attributes", "system_attributes")
    with closing(sqlite3.connect(file)) as base, base:
        count, last = base.execute("SELECT COUNT(*), MAX(trial_id) FROM trials").fetchone()
        for copy in range(1, size // count):
            shifts = {"trial_id": copy * last, "number": copy * count}
            for table in ("trials", *(f"trial_{part}" for part in parts)):
                columns = base.execute(f"PRAGMA table_info({table})").fetchall()
                # A part's own key counts by itself; name is column 1, primary key column 5.
                kept = [row[1] for row in columns if row[1] == "trial_id" or not row[5]]
                values = [f"{name} + {shifts[name]}" if name in shifts else name for name in kept]
                base.execute(
                    f"INSERT INTO {table} ({', '.join(kept)}) SELECT {', '.join(values)} "
                    f"FROM {table} WHERE trial_id <= {last}"
                )


def main() -> None:
    """Measure on copies of one study that was begun through the engine."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[Row] = []

    def note(what: str, value: float, unit: str, goal: str) -> None:
        rows.append(Row(what=what, value=value, unit=unit, goal=goal))

    for sampler, pruner in (("random", "asha"), ("tpe", "median")):
        config, label = sweep(sampler, pruner), f"{sampler} + {pruner}"
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VFSEARCH_HOME"] = folder
            engine(config, BEGUN, resume=False)
            file = Path(folder) / "sweeps" / "stub" / "study.db"
            begun = Path(folder) / "begun.db"
            shutil.copy(file, begun)
            for size in SIZES:
                shutil.copy(begun, file)
                grow(file, size)
                copy = Path(shutil.copy(file, Path(folder) / f"{size}.db"))
                # The first trial reads the study from the database, once per driver.
                alone = median(optuna_alone(config, copy, TIMED)[1:])
                whole = median(engine(config, TIMED, resume=True)[1:])
                note(f"{label}, {size:,} trials: Optuna alone", 1000 * alone, "ms CPU", "-")
                note(f"{label}, {size:,} trials: with the engine", 1000 * whole, "ms CPU", "-")
                note(f"{label}, {size:,} trials: ratio", whole / alone, "x", "<= 2")
    record("engine", rows)


if __name__ == "__main__":
    main()
