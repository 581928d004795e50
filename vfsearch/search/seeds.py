"""A trial of several seeds: one run after the other, reported as the mean of the seeds so far.

The epochs of the second run follow those of the first: with E epochs a run, report k E + e is the
mean over k + 1 seeds at epoch e. A pruner can so stop a trial in its first run already, on one seed
like all others, or later on a mean; the value of a trial that ends is the mean over all its seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import fsum
from pathlib import Path

import torch

from vfsearch.config import RunConfig
from vfsearch.search.records import AVERAGED
from vfsearch.training.loop import EpochReport, Outcome, Reporter, Stores, train

Metrics = dict[str, float]


def train_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    out: Path,
    reporter: Reporter,
    *,
    device: torch.device,
    stores: Stores,
) -> Outcome:
    """Train every seed in a folder of its own; continues where an earlier call was killed.

    Args:
        config: The run.
        seeds: One or more; ``config.seed`` does not matter.
        out: Folder of the trial, and of its first seed.
        reporter: Is told the means; may end the trial after any epoch.
        device: Of this rank.
        stores: Decoded splits.

    Returns:
        The means of all reported epochs, with the best of the epochs that most seeds are in; the
        checkpoint ``best`` is that of the seed with the best value of its own.
    """
    runs: list[Outcome] = []
    for index, seed in enumerate(seeds):
        folder = out if index == 0 else out / f"seed-{index}"
        averaging = _Averaging(reporter, [run.history for run in runs])
        seeded = config.model_copy(update={"seed": seed})
        runs.append(train(seeded, folder, averaging, device=device, stores=stores))
        if runs[-1].stopped:
            break
    return runs[0] if len(seeds) == 1 else _combined(runs, config.evaluation.select)


def mean_row(rows: Sequence[Metrics]) -> Metrics:
    """Metrics of one epoch over seeds, the latest last; times are the latest's own."""
    averaged = {
        key: value
        if key.startswith("time/")
        else fsum(row[key] for row in rows if key in row) / sum(key in row for row in rows)
        for key, value in rows[-1].items()
    }
    return averaged | {AVERAGED: float(len(rows))}


class _Averaging:
    """Passes the epochs of one seed on as means over it and the seeds before."""

    def __init__(self, reporter: Reporter, before: Sequence[Sequence[Metrics]]) -> None:
        self._reporter, self._before = reporter, before

    def report(self, report: EpochReport) -> bool:
        if not self._before:
            return self._reporter.report(report)
        rows = [history[report.epoch - 1] for history in self._before]
        done = sum(len(history) for history in self._before)
        metrics = mean_row([*rows, report.metrics])
        return self._reporter.report(
            # Steps are logged of the first seed alone: theirs would carry the same numbers.
            replace(report, epoch=done + report.epoch, metrics=metrics, steps=())
        )


def _combined(runs: Sequence[Outcome], select: str) -> Outcome:
    """One outcome of the runs of a trial."""
    history = [dict(row) for row in runs[0].history]
    for index, run in enumerate(runs[1:], start=1):
        history += [
            mean_row([*(earlier.history[epoch] for earlier in runs[:index]), row])
            for epoch, row in enumerate(run.history)
        ]
    last = range(len(history) - len(runs[-1].history), len(history))
    best = max(last, key=lambda row: (history[row][select], -row))
    return replace(
        runs[-1],
        epoch=len(history),
        step=sum(run.step for run in runs),
        best_epoch=best + 1,
        best_value=history[best][select],
        history=tuple(history),
        best=max(runs, key=lambda run: run.best_value).best,
    )
